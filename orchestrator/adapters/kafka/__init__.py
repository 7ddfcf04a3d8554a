"""Events out to Kafka: CloudEvents 1.0 in binary mode, in order per saga.

Records of any topic come in, each to an intake.

The contract for readers is in `docs/kafka.md`.
"""

from orchestrator.adapters.kafka.consumer import ConsumerSettings, KafkaConsumer
from orchestrator.adapters.kafka.dead_letters import KafkaDeadLetters
from orchestrator.adapters.kafka.publisher import KafkaPublisher, open_publisher
from orchestrator.adapters.kafka.security import KafkaSecurity, arguments
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.adapters.kafka.topic import (
    Report,
    check,
    count_partitions,
    ensure_topic,
    ensure_topics,
)
from orchestrator.adapters.kafka.topic_checks import TopicReport
from orchestrator.adapters.kafka.transactional import TransactionalPublisher, open_transactional

__all__ = [
    "ConsumerSettings",
    "KafkaConsumer",
    "KafkaDeadLetters",
    "KafkaPublisher",
    "KafkaSecurity",
    "KafkaSettings",
    "Report",
    "TopicReport",
    "TransactionalPublisher",
    "arguments",
    "check",
    "count_partitions",
    "ensure_topic",
    "ensure_topics",
    "open_publisher",
    "open_transactional",
]
