"""Kafka beside the relay: records in, consumers of saga events, participants of remote steps."""

from typing import TYPE_CHECKING, Any

from orchestrator.domain.inbound import OnEvent, OnSignal, on_event, on_signal
from orchestrator.errors import GapError
from orchestrator.messaging.event import Event

if TYPE_CHECKING:
    from orchestrator.adapters.kafka import ConsumerSettings
    from orchestrator.adapters.postgres.consumed import (
        ParkedEvent,
        consumer_tables,
        create_tables,
    )
    from orchestrator.messaging.consumer import EventConsumer
    from orchestrator.messaging.handlers import CommandContext
    from orchestrator.messaging.participant import Participant

__all__ = [
    "CommandContext",
    "ConsumerSettings",
    "Event",
    "EventConsumer",
    "GapError",
    "OnEvent",
    "OnSignal",
    "ParkedEvent",
    "Participant",
    "consumer_tables",
    "create_tables",
    "on_event",
    "on_signal",
]

_ELSEWHERE = {
    "CommandContext": "orchestrator.messaging.handlers",
    "ConsumerSettings": "orchestrator.adapters.kafka",
    "EventConsumer": "orchestrator.messaging.consumer",
    "ParkedEvent": "orchestrator.adapters.postgres.consumed",
    "Participant": "orchestrator.messaging.participant",
    "consumer_tables": "orchestrator.adapters.postgres.consumed",
    "create_tables": "orchestrator.adapters.postgres.consumed",
}


def __getattr__(name: str) -> Any:
    """Load what needs database and broker libraries only when it is asked for."""
    if name in _ELSEWHERE:
        import importlib

        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module 'orchestrator.messaging' has no attribute {name!r}")
