"""One command: carried out once, remembered with what came of it, and answered from the book."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.postgres.command_book import CommandBook, Entry, Page
from orchestrator.domain.commands import InDoubt
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.exchange import RemoteCommand, RemoteReply, failure_from
from orchestrator.domain.outcomes import outcome_of
from orchestrator.errors import BusyError, Permanent, Retryable, UnavailableError
from orchestrator.messaging.handlers import Known, context_of

log = logging.getLogger(__name__)

_VOID = Failure(
    "Void", "it was undone before it came, and is not carried out any more", permanent=True
)
_REFUSED = Failure("Refused", "a probe was told that it did not happen, so it does not any more")


_DROP_AFTER = 2.0
"""Seconds that a handler gets to end when it is called away; then it loses its connection."""

_Settle = Callable[[Page, RemoteCommand], Awaitable[Entry]]


class _GoneError(Exception):
    """The transaction of a handler is gone; what it did with it, and elsewhere, is not known."""


class Carrier:
    """Carries commands out for the participant *name*; each handler has *limit* seconds."""

    def __init__(
        self, name: str, book: CommandBook, handlers: Mapping[str, Known], limit: float
    ) -> None:
        self._name = name
        self._book = book
        self._known = handlers
        self._limit = limit
        self._codec = JsonCodec()

    async def handle(self, command: RemoteCommand) -> RemoteReply:
        """Carry *command* out, unless it was before; what is to be replied."""
        if command.intent == "probe":
            return await self._probed(command)
        try:
            entry = await self._entered(command, self._settled)
        except _GoneError as gone:
            # Remembered in another transaction, so that it is not tried without end.
            entry = await self._entered(command, partial(_left_in_doubt, TimeoutError(str(gone))))
        return self._reply(command, entry)

    async def _entered(self, command: RemoteCommand, settle: _Settle) -> Entry:
        """What the book says; of what it does not know yet, what *settle* makes of it."""
        turns = (command.command_id, command.undoes) if command.undoes else (command.command_id,)
        async with self._book.page(*turns) as page:
            known = await page.read(command.command_id)
            if known is not None and _holds(known, command.number):
                return known
            entry = await settle(page, command)
            if entry.standing == "failed" and known is not None and known.standing == "in_doubt":
                # A refusal says nothing of the earlier attempt, which may have come through.
                entry = replace(entry, standing="in_doubt")
            await page.write(command.command_id, command.command, entry)
            return entry

    async def _settled(self, page: Page, command: RemoteCommand) -> Entry:
        if not command.undoes:
            return await self._carried_out(page, command)
        about = await page.read(command.undoes)
        if about is None or about.standing not in ("done", "in_doubt"):
            # Nothing to take back; and what is taken back must not happen late.
            await page.write(command.undoes, "", Entry("void", command.number))
            return Entry("done", command.number)
        entry = await self._carried_out(page, command)
        if about.standing == "in_doubt" and entry.standing == "done":
            await page.write(command.undoes, "", Entry("void", command.number))
        return entry

    async def _carried_out(self, page: Page, command: RemoteCommand) -> Entry:
        try:
            known = self._find(command.command)
            given = self._codec.decode(command.payload, known.input)
            async with page.effect(known.wants) as handle:
                made = await self._called(page, known.handler(given, context_of(command), *handle))
                text = self._codec.encode(made, known.output)
        except (UnavailableError, _GoneError):
            raise
        except Exception as error:
            if page.was_ended:
                raise _GoneError("the handler ended the transaction; that is left to us") from error
            if page.is_busy(error):
                raise BusyError(f"command {command.command_id}: {error}") from error
            if not isinstance(error, Permanent | Retryable):
                told = (command.command, command.command_id)
                log.warning("command %s (%s) failed", *told, exc_info=error)
            return _failed(error, command.number)
        return Entry("done", command.number, text)

    async def _called(self, page: Page, call: Awaitable[Any]) -> Any:
        """What a handler gives, within its time. One that is called away commits nothing more."""
        task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task}, timeout=self._limit)
        finally:
            if late := not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_DROP_AFTER)
                await page.drop()
        if late:
            raise _GoneError(f"the handler took longer than {self._limit:g} s")
        if task.cancelled():
            # Let out as it is, it would end whoever called the handler, without a word.
            raise TimeoutError("what the handler awaited was cancelled")
        return task.result()

    def _find(self, command: str) -> Known:
        if command in self._known:
            return self._known[command]
        there = ", ".join(self._known) or "none"
        raise LookupError(f"participant {self._name} has no command {command!r}; it has: {there}")

    async def _probed(self, command: RemoteCommand) -> RemoteReply:
        """Whether it happened. One that did not will not any more: what was sent before is refused."""
        async with self._book.page_if_free(command.command_id) as page:
            if page is None:
                return self._says(command, "busy")
            entry = await page.read(command.command_id)
            if entry is not None and entry.standing == "done":
                return self._says(command, "happened", Json(entry.answer or "null"))
            if entry is not None and entry.standing == "in_doubt":
                return self._says(command, "unknown")
            if entry is None or entry.standing != "void":
                # A probe may come again, behind what was sent after it.
                number = max(command.number, entry.number if entry else 0)
                refused = Entry("refused", number)
                await page.write(command.command_id, command.command, refused)
        return self._says(command, "not_happened")

    def _reply(self, command: RemoteCommand, entry: Entry) -> RemoteReply:
        match entry.standing:
            case "done":
                return self._says(command, "succeeded", Json(entry.answer or "null"))
            case "void":
                return self._says(command, "failed", failure=_VOID)
            case "refused":
                return self._says(command, "failed", failure=_REFUSED)
            case standing:
                failure = failure_from(json.loads(entry.answer or "{}"))
                return self._says(command, standing, failure=failure)

    def _says(
        self,
        command: RemoteCommand,
        answer: str,
        output: Json | None = None,
        failure: Failure | None = None,
    ) -> RemoteReply:
        return RemoteReply(
            command.command_id, command.intent, command.number, answer, output, failure, self._name
        )


def _holds(entry: Entry, number: int) -> bool:
    """Whether what became of a command is also the answer to what was sent as *number*."""
    return entry.standing in ("done", "void") or number <= entry.number


async def _left_in_doubt(error: Exception, page: Page, command: RemoteCommand) -> Entry:
    del page
    return _failed(error, command.number)


def _failed(error: Exception, number: int) -> Entry:
    outcome = outcome_of(error)
    standing = "in_doubt" if isinstance(outcome, InDoubt) else "failed"
    failure = getattr(outcome, "failure", None)
    return Entry(standing, number, json.dumps(asdict(failure)) if failure else None)
