"""What the tests of crashes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import NoBrokerError, fetch_kafka
from tests.chaos.kafka import Broker


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Broker]:
    """An Apache Kafka that the test may end and start again."""
    try:
        broker = Broker(fetch_kafka(), tmp_path / "kafka")
    except NoBrokerError as reason:
        pytest.skip(f"only Apache Kafka may be ended and started again: {reason}")
    broker.launch()
    try:
        broker.await_answer()
        yield broker
    finally:
        broker.end(kill=True)
