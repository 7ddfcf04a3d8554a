"""The processes beside a worker when the relay is measured: a relay, and a reader of its topic.

    python -m benchmarks.relay_sides relay DSN SERVERS TOPIC
    python -m benchmarks.relay_sides reader SERVERS TOPIC EVENTS

The reader prints, as JSON, the milliseconds from when each event was recorded to when it was read.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import time
from datetime import datetime

from confluent_kafka import Consumer, TopicPartition

from orchestrator.bootstrap import open_app, spare_the_collector
from orchestrator.settings import Settings


async def relay(dsn: str, servers: str, topic: str) -> None:
    """`saga relay`, until SIGTERM."""
    spare_the_collector()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings.model_validate(
        {"database_url": dsn, "kafka_bootstrap_servers": servers, "kafka_topic": topic}
    )
    async with open_app(settings) as app:
        running = app.relay()
        assert running is not None
        await running.run(stop)


def reader(servers: str, topic: str, events: str) -> None:
    """Read so many events from now on, as a reader of committed records does."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 5,
        }
    )  # fmt: skip
    parts = [
        TopicPartition(topic, number)
        for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ]
    for part in parts:
        part.offset = consumer.get_watermark_offsets(part, timeout=20)[1]
    consumer.assign(parts)
    print("ready", flush=True)
    times: list[float] = []
    while len(times) < int(events):
        found = consumer.consume(1000, timeout=0.05)
        now = time.time()
        for message in found:
            headers = dict(message.headers() or ())
            recorded = datetime.fromisoformat(bytes(headers["ce_time"]).decode())
            times.append((now - recorded.timestamp()) * 1000)
    consumer.close()
    cuts = statistics.quantiles(times, n=100)
    print(json.dumps({"p50": cuts[49], "p99": cuts[98]}))


if __name__ == "__main__":
    side, *where = sys.argv[1:]
    if side == "reader":
        reader(*where)
    else:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(relay(*where))
