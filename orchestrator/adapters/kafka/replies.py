"""What participants reply, into the inboxes of those who wait."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from orchestrator.adapters.kafka.commands import read_reply
from orchestrator.domain.exchange import RemoteReply
from orchestrator.errors import InvalidInputError, RejectedRecordError
from orchestrator.ports import Record, Reply

log = logging.getLogger(__name__)


class ReplyIntake:
    """orchestrator.ports.Intake over the reply topic.

    One that cannot be read is a dead letter; one that nobody waits for (any more) is of no use.
    Its step is in doubt when its time is over, and asks.
    """

    def __init__(self, hand_on: Callable[[RemoteReply], Awaitable[Reply]]) -> None:
        self._hand_on = hand_on

    async def take(self, record: Record, attempt: int) -> None:
        """As the port says."""
        del attempt
        try:
            reply = read_reply(record.value, list(record.headers))
            answer = await self._hand_on(reply)
        except InvalidInputError as error:
            raise RejectedRecordError(str(error)) from error
        if answer not in (Reply.ACCEPTED, Reply.DUPLICATE):
            log.info("a reply to %s is of no use any more: %s", reply.command_id, answer)
