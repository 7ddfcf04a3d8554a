"""Events out to Kafka: one record an event, CloudEvents 1.0 in binary mode, in order per saga.

The contract for readers is in `docs/kafka.md`.
"""

from orchestrator.adapters.kafka.publisher import KafkaPublisher, open_publisher
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.adapters.kafka.topic import TopicReport, check, ensure_topic
from orchestrator.adapters.kafka.transactional import TransactionalPublisher, open_transactional

__all__ = [
    "KafkaPublisher",
    "KafkaSettings",
    "TopicReport",
    "TransactionalPublisher",
    "check",
    "ensure_topic",
    "open_publisher",
    "open_transactional",
]
