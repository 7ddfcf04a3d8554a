"""The payments service as a process that dies, and loses replies, by chance.

    python -m tests.remote.mortal_payments DSN SERVERS SEED DIES LOSES

DIES and LOSES are chances: of a SIGKILL after the effect is there and before the reply goes, and of
a reply that is never sent although the command counts as dealt with.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import Any

from orchestrator.domain.exchange import RemoteCommand, RemoteReply
from orchestrator.messaging import Participant
from sagas.remote.messages import TOPIC
from sagas.remote.payments import serve


class Mortal(Participant):
    """Dies and loses replies."""

    chance: random.Random
    dies: float
    loses: float

    async def answer(self, sender: Any, command: RemoteCommand, reply: RemoteReply) -> None:
        if self.chance.random() < self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.chance.random() < self.loses:
            return
        await super().answer(sender, command, reply)


async def main(dsn: str, servers: str, seed: str, dies: str, loses: str) -> None:
    participant = Mortal("payments", topics=(TOPIC,), database_url=dsn, kafka=servers)
    participant.chance = random.Random(seed)
    participant.dies, participant.loses = float(dies), float(loses)
    await serve(participant, dsn)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
