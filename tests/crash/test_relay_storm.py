"""The relay's promise, kept while relays, broker and database are killed, stopped and restarted.

RELAY_STORM=full is the size that the promise was made for: 20,000 sagas and 48 faults.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.kafka import Broker
from tests.crash.feed_writer import VERSIONS
from tests.crash.relay_process import Told
from tests.crash.relay_storm import (
    FULL,
    SMALL,
    Crew,
    Storm,
    Weather,
    blow,
    disorder,
    firsts,
    read_with_aiokafka,
)
from tests.kafka_reader import read_topic
from tests.servers import DurableServer

pytestmark = [pytest.mark.kafka, pytest.mark.crash, pytest.mark.slow]

STORM: Storm = FULL if os.environ.get("RELAY_STORM") == "full" else SMALL
SEED = int(os.environ.get("RELAY_STORM_SEED", "1"))


@pytest.mark.timeout(120 if STORM is SMALL else 1800)
async def test_readers_of_committed_records_see_every_event_once_and_in_order(
    durable_pg: DurableServer, own_kafka: Broker, tmp_path: Path
) -> None:
    told = Told(transactions=True, shards=4, page=200)
    crew = Crew(durable_pg.dsn, own_kafka.servers, tmp_path, told)
    weather = Weather(crew, own_kafka, durable_pg, random.Random(SEED))
    with crew.at_work():
        sagas = await blow(STORM, weather, SEED)

    assert weather.fired == {
        "kill": STORM.kills,
        "stop": STORM.stops,
        "broker": STORM.brokers,
        "database": STORM.databases,
    }
    assert len(sagas) == STORM.sagas
    seen = await read_with_aiokafka(own_kafka.servers, crew.topic)
    assert disorder(seen, sagas, VERSIONS) == {}
    records = read_topic(own_kafka.servers, crew.topic, within=120)
    assert disorder([(r.key, r.version) for r in records], sagas, VERSIONS) == {}
    assert crew.said("does not publish") == 0
    _tell(crew, weather, len(records), 0)


@pytest.mark.timeout(120 if STORM is SMALL else 1800)
async def test_without_transactions_none_is_missing_and_first_occurrences_are_in_order(
    durable_pg: DurableServer, own_kafka: Broker, tmp_path: Path
) -> None:
    told = Told(transactions=False, shards=4, page=50)
    crew = Crew(durable_pg.dsn, own_kafka.servers, tmp_path, told)
    weather = Weather(crew, own_kafka, durable_pg, random.Random(SEED))
    with crew.at_work():
        sagas = await blow(STORM, weather, SEED)

    records = read_topic(own_kafka.servers, crew.topic, within=120)
    seen = [(record.key, record.version) for record in records]
    assert disorder(firsts(seen), sagas, VERSIONS) == {}
    repeats = len(seen) - len(firsts(seen))
    rewinds = crew.said("takes over") + crew.said("goes back")
    assert repeats <= rewinds * told.page
    if STORM is FULL:
        assert repeats <= len(seen) / 100
    _tell(crew, weather, len(records), repeats)


def _tell(crew: Crew, weather: Weather, records: int, repeats: int) -> None:
    """The counts, for `pytest -s`."""
    said = {
        what: crew.said(what)
        for what in ("takes over", "was taken over", "goes back", "does not publish")
    }
    print(f"\n{records} records, {repeats} repeats, {dict(weather.fired)}, {said}")
