"""Telemetry that says nothing, without the libraries that the real one needs."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.domain.events import Event


class SilentTelemetry:
    """Hears everything and says nothing."""

    def recorded(self, saga_name: str, saga_id: str, events: Iterable[Event], meta: str) -> None:
        return

    def attempted(self, saga_name: str, step: str, outcome: str, seconds: float) -> None:
        return

    def batch(self, kind: str, size: int, seconds: float) -> None:
        return

    def count(self, name: str, by: int = 1) -> None:
        return

    def level(self, name: str, of: str, value: float) -> None:
        return
