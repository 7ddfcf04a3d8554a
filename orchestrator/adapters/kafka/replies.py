"""What participants reply, each handed on before its offset is committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.adapters.kafka.commands import read_reply
from orchestrator.adapters.kafka.consuming import consume
from orchestrator.adapters.kafka.settings import KafkaSettings
from orchestrator.domain.exchange import RemoteReply
from orchestrator.errors import InvalidInputError
from orchestrator.ports import Reply

log = logging.getLogger(__name__)

Take = Callable[[RemoteReply], Awaitable[Reply]]


async def hear_replies(settings: KafkaSettings, take: Take, stop: asyncio.Event) -> None:
    """Hand every reply of the reply topic to *take*, until *stop* is set.

    One that cannot be read, or that nobody waits for, is told of and passed over: its step is in
    doubt when its time is over, and asks.
    """

    async def deal(record: Any) -> None:
        try:
            reply = read_reply(record.value, list(record.headers))
            answer = await take(reply)
        except InvalidInputError as error:
            place = f"{record.topic}/{record.partition}/{record.offset}"
            log.warning("the reply at %s is passed over: %s", place, error)
            return
        if answer not in (Reply.ACCEPTED, Reply.DUPLICATE):
            log.info("a reply to %s is of no use any more: %s", reply.command_id, answer)

    topic = settings.reply_topic
    await consume(settings, (topic,), f"{topic}.inbox", deal, stop)
