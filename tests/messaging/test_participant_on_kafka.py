"""A participant over a real broker: what is bad, large or slow holds up nothing that comes behind it."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from orchestrator.messaging import CommandContext, Participant
from tests.kafka_reader import Read, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]


@dataclass
class Counter:
    """A participant that runs, with topics of its own."""

    servers: str
    dsn: str
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def commands(self) -> str:
        return f"commands-{self.tag}"

    @property
    def replies(self) -> str:
        return f"replies-{self.tag}"

    @property
    def dead(self) -> str:
        return f"dead-{self.tag}"

    def create(self, topic: str, **config: str) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers})
        admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(20)

    def send(self, name: str, value: bytes = b"5", **change: str) -> None:
        """A command of the instance *name*; all of them lie in one partition, behind one another."""
        told = {"command_id": f"{name}/0", "intent": "do", "ce_type": "spell", "number": "1"}
        told |= {"reply_to": self.replies, **change}
        producer = Producer({"bootstrap.servers": self.servers})
        headers = [(header, text.encode()) for header, text in told.items()]
        producer.produce(self.commands, value, b"one key", headers=headers)
        assert producer.flush(30) == 0

    async def replied(self, count: int, within: float = 40) -> list[Read]:
        async with asyncio.timeout(within):
            while True:
                found = await asyncio.to_thread(read_topic, self.servers, self.replies)
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.1)


Serve = Callable[[], asyncio.Task[None]]


@pytest.fixture
async def counter(kafka: str, empty_dsn: str) -> Counter:
    made = Counter(kafka, empty_dsn)
    made.create(made.commands)
    return made


@pytest.fixture
async def serve(counter: Counter) -> AsyncIterator[Serve]:
    """Starts the participant."""
    stop = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    participant = Participant(
        f"p-{counter.tag}",
        topics=(counter.commands,),
        database_url=counter.dsn,
        kafka=counter.servers,
        dead_letters=counter.dead,
    )

    @participant.command("spell", input=int, output=str)
    async def spell(n: int, ctx: CommandContext, db: asyncpg.Connection) -> str:
        return "x" * n

    def start() -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(participant.run(stop)))
        return tasks[0]

    yield start
    stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 40)


async def test_commands_that_cannot_be_read_are_dead_letters_and_the_next_is_answered(
    counter: Counter, serve: Serve
) -> None:
    counter.create(counter.replies)
    counter.send("deep", b"[" * 5_000 + b"]" * 5_000)
    counter.send("nul\0", b"5")
    counter.send("number", number=str(10**12))
    counter.send("topic", reply_to="no topic")
    counter.send("good")
    serve()
    [reply] = await counter.replied(1)
    assert (reply.header["command_id"], reply.value) == ("good/0", b'"xxxxx"')
    assert len(read_topic(counter.servers, counter.dead)) == 4


async def test_a_reply_that_its_topic_does_not_take_leaves_doubt_and_holds_up_nobody(
    counter: Counter, serve: Serve
) -> None:
    counter.create(counter.replies, **{"max.message.bytes": "200000"})
    counter.send("large", b"500000")
    counter.send("large", b"500000", intent="probe", number="2")
    counter.send("good")
    serve()
    replies = await counter.replied(3)
    assert [reply.header["answer"] for reply in replies] == ["in_doubt", "unknown", "succeeded"]
    assert b"UnrecordableError" in replies[0].value


async def test_a_participant_frozen_in_a_command_adds_nothing_to_what_another_did(
    counter: Counter,
) -> None:
    """It wakes up after its session, its turn and its partition have gone to another process."""
    counter.create(counter.replies)
    side = await asyncpg.connect(counter.dsn)
    await side.execute("CREATE TABLE effect (who text, command_id text)")
    counter.send("order", ce_type="charge")
    counter.send("order", ce_type="charge", intent="probe", number="2")
    one = await till(counter, "one")
    two = None
    try:
        assert await asyncio.wait_for(one.stdout.readline(), 60) == b"inside\n"
        one.send_signal(signal.SIGSTOP)
        two = await till(counter, "two")
        replies = await counter.replied(2, within=90)
        assert [reply.header["answer"] for reply in replies] == ["succeeded", "happened"]
        one.send_signal(signal.SIGCONT)
        two.kill()
        # Now the first one reads on: what it held is known, and what comes is done once.
        counter.send("order", ce_type="charge")
        replies = await counter.replied(3, within=90)
        assert {reply.value for reply in replies} == {b'"two"'}
        assert [row["who"] for row in await side.fetch("SELECT who FROM effect")] == ["two"]
    finally:
        for process in filter(None, (one, two)):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await side.close()


async def till(counter: Counter, name: str) -> Any:
    given = (counter.dsn, counter.servers, counter.commands, name)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.messaging.frozen_till", *given, stdout=asyncio.subprocess.PIPE
    )
