"""A participant in a process of its own that is frozen by a test, in the middle of a command.

python -m tests.messaging.frozen_till DSN SERVERS TOPIC NAME
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg

from orchestrator.messaging import CommandContext, Participant


async def main(dsn: str, servers: str, topic: str, name: str) -> None:
    participant = Participant(
        "till", topics=(topic,), database_url=dsn, kafka=servers, handler_timeout=1
    )

    @participant.command("charge", input=int, output=str)
    async def charge(cents: int, ctx: CommandContext, db: asyncpg.Connection) -> str:
        await db.execute("INSERT INTO effect VALUES ($1, $2)", name, ctx.command_id)
        print("inside", flush=True)
        await asyncio.sleep(0.3)
        return name

    await participant.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
