"""What passes between an instance and its children: starts, cancels, undos, ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from orchestrator.domain.commands import (
    CancelChild,
    ChildOver,
    Failed,
    Outcome,
    StartChild,
    Succeeded,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.events import ENDED, Failure, SagaCompleted, Status
from orchestrator.domain.outcomes import failure_of
from orchestrator.errors import InvalidInputError, UnavailableError
from orchestrator.ports import DUE, Claim, Codec, Filter, MessageKind, StartRequest, Store

log = logging.getLogger(__name__)

_PAGE = 500
_HANDED_DOWN = ("correlation_id", "trace_id", "span_id", "user_id", "baggage", "tags")


class Kin:
    """Speaks to the children and parents of instances, through their requests and inboxes."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._codec = codec

    async def start(self, command: StartChild, parent_id: str, context: str, head: int) -> Outcome:
        """Store the child's request. The same id again changes nothing."""
        saga = command.saga
        try:
            value = self._codec.decode(command.input, saga.input_type)
            text = self._codec.encode(value, saga.input_type)
        except InvalidInputError as error:
            return Failed(failure_of(error, permanent=True))
        given = json.loads(context)
        fields = {name: given[name] for name in _HANDED_DOWN if given.get(name)}
        fields["causation_id"] = f"{parent_id}:{head}"
        request = StartRequest(
            command.child_id,
            saga.name,
            saga.version,
            saga.fingerprint,
            command.key or None,
            text,
            json.dumps(fields, ensure_ascii=False, separators=(",", ":")),
            fields.get("correlation_id", parent_id),
            fields.get("tags", {}),
            parent_id,
            command.path,
        )
        [answer] = await self._store.requests.start([request])
        self._store.hints.poke(DUE)
        if answer.saga_id != command.child_id:
            text_ = f"key {command.key!r} of saga {saga.name!r} belongs to {answer.saga_id}"
            return Failed(Failure("KeyConflictError", text_, permanent=True))
        return Succeeded()

    async def tell(self, command: CancelChild | UndoChild, parent_id: str, reason: str) -> Outcome:
        """Ask a child to go back. One that cannot any more is found out by watching it."""
        kind = MessageKind.CANCEL if isinstance(command, CancelChild) else MessageKind.UNDO
        await self._send(command.child_id, kind, parent_id, reason)
        return Succeeded()

    async def terminate(self, children: Sequence[str], parent_id: str, reason: str) -> None:
        """End children where they stand, together with their parent."""
        for child in children:
            await self._send(child, MessageKind.TERMINATE, parent_id, reason)

    async def children_of(self, parent_id: str) -> list[str]:
        """All that were ever started, where the log of their parent cannot be read."""
        found: list[str] = []
        before: str | None = None
        while page := await self._store.reads.search(
            Filter(parent=parent_id, before=before, limit=_PAGE)
        ):
            found += [child.saga_id for child in page]
            before = page[-1].saga_id
        return found

    async def _send(self, child_id: str, kind: MessageKind, parent_id: str, reason: str) -> None:
        await self._store.inbox.send(
            child_id,
            kind,
            {"reason": reason or f"its parent {parent_id} goes back"},
            actor=f"saga {parent_id}",
            dedupe_key=f"parent-{kind}",
        )
        self._store.hints.poke(DUE)

    async def over(self, watches: Sequence[WatchChild]) -> list[tuple[WatchChild, Outcome]]:
        """Those of *watches* whose child has ended (or has been undone, where that is awaited)."""
        ended = await self._store.reads.ended([watch.child_id for watch in watches])
        found: list[tuple[WatchChild, Outcome]] = []
        for watch in watches:
            status = ended.get(watch.child_id)
            if status is None or status not in ENDED:
                continue
            if watch.undone and status is Status.COMPLETED:
                continue
            found.append((watch, await self._outcome(watch.child_id, status)))
        return found

    async def _outcome(self, child_id: str, status: Status) -> Outcome:
        if status is not Status.COMPLETED:
            child = await self._store.reads.get(child_id)
            rows = await self._store.events.read(child_id, max((child.head if child else 1) - 1, 0))
            reason = getattr(self._codec.decode_event(rows[-1]), "reason", "") if rows else ""
            text = f"saga {child_id} is {status}: {reason}"
            return ChildOver(status, None, Failure("ChildFailed", text, _KINDS))
        child = await self._store.reads.get(child_id)
        rows = await self._store.events.read(child_id, (child.head if child else 1) - 1)
        last = self._codec.decode_event(rows[-1])
        return ChildOver(status, last.output if isinstance(last, SagaCompleted) else None)

    async def report_end(
        self, claim: Claim, parent: str, status: Status, *, recorded: bool = False
    ) -> bool:
        """Tell the parent what its child is about to record; it then looks until that is there.

        False: nobody knows whether it was told. Once the end is *recorded* it is told again.
        """
        again = "-again" if recorded else ""
        try:
            await self._store.inbox.send(
                parent,
                MessageKind.CHILD,
                {"child": claim.saga_id, "status": status},
                actor=f"saga {claim.saga_id}",
                dedupe_key=f"child-{claim.saga_id}-{claim.epoch}{again}",
            )
        except UnavailableError as error:
            # What the steps did is not done again for this.
            log.info("saga %s could not tell its parent: %s", claim.saga_id, error)
            return False
        return True


_KINDS = ("orchestrator.errors.SagaFailedError", "orchestrator.errors.OrchestratorError")
