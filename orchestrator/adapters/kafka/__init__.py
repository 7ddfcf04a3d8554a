"""Events out to Kafka: one record an event, CloudEvents 1.0 in binary mode, in order per saga.
And records of any topic in, each to an intake.

The contract for readers is in `docs/kafka.md`.
"""

from orchestrator.adapters.kafka.consumer import ConsumerSettings, KafkaConsumer
from orchestrator.adapters.kafka.dead_letters import KafkaDeadLetters
from orchestrator.adapters.kafka.publisher import KafkaPublisher, open_publisher
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.adapters.kafka.topic import TopicReport, check, count_partitions, ensure_topic

__all__ = [
    "ConsumerSettings",
    "KafkaConsumer",
    "KafkaDeadLetters",
    "KafkaPublisher",
    "KafkaSettings",
    "TopicReport",
    "check",
    "count_partitions",
    "ensure_topic",
    "open_publisher",
]
