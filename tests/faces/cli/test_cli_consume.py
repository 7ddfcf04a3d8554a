"""`saga consume` without what it needs, and what `saga doctor` says of its topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faces.cli.prompt import Prompt
from tests.messaging.records import new_topic

ARRIVALS = "tests.crash.arrivals"


def test_without_a_broker_it_says_what_to_set(saga: Prompt) -> None:
    error = saga("consume", "--sagas", ARRIVALS, "--json").error
    assert error["exit_code"] == 2
    assert "SAGA_KAFKA_BOOTSTRAP_SERVERS" in error["message"]


def test_without_a_declared_topic_it_says_what_to_write(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    error = saga("consume", "--json").error
    assert error["exit_code"] == 3
    assert "on_event(...)" in error["message"]


def test_a_module_that_only_declares_topics_has_nothing_to_work_on(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "only_topics.py").write_text(
        f"from {ARRIVALS} import placed\nINBOUND = (placed,)\n", "utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    error = saga("worker", "--sagas", "only_topics", "--json").error
    assert error["exit_code"] == 3
    assert "only declare topics" in error["message"]


def test_the_doctor_names_topics_that_have_no_broker(saga: Prompt) -> None:
    said = saga("doctor", "--sagas", ARRIVALS)
    assert said.code == 5
    assert "inbound: topics are declared, but no broker" in said.out


@pytest.mark.kafka
def test_the_doctor_looks_at_the_topics(
    saga: Prompt, monkeypatch: pytest.MonkeyPatch, kafka: str, tmp_path: Path
) -> None:
    there = new_topic(kafka)
    (tmp_path / "two_topics.py").write_text(
        "from orchestrator.messaging import on_event\n"
        f"from {ARRIVALS} import saga\n"
        f"one, two = on_event({there!r}, saga), on_event({there + '.other'!r}, saga)\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAGA_KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("SAGA_KAFKA_TOPIC", f"{there}.events")
    monkeypatch.setenv("SAGA_KAFKA_DEAD_LETTERS", f"{there}.dead")
    said = saga("doctor", "--sagas", "two_topics")
    assert said.code == 0, said.out
    assert f"✓ inbound: topic {there}, 3 partitions" in said.out
    assert f"! inbound: there is no topic {there}.other yet; it is waited for" in said.out
    assert f"topic {there}.dead for dead letters will be made when a record needs it" in said.out
