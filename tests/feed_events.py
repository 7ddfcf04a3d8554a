"""Events as a feed hands them out, made for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.ports import EventRow, FeedEvent

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def feed_event(
    saga_id: str,
    version: int,
    *,
    position: int = 0,
    type_: str = "StepSucceeded",
    data: str = '{"output":{"cents":100}}',
    meta: str = "{}",
) -> FeedEvent:
    row = EventRow(
        saga_id, version, type_, "order/0", 1, 2, data, meta, NOON, hash=b"", position=position
    )
    return FeedEvent(row, saga_name="order", saga_version=3, correlation_id="request-7")
