"""Kafka beside the relay: records that start or signal sagas, and consumers of saga events."""

from orchestrator.domain.inbound import OnEvent, OnSignal, on_event, on_signal

__all__ = ["OnEvent", "OnSignal", "on_event", "on_signal"]
