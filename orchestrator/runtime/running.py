"""An owned instance in memory, and how it is read back from its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.chain import genesis
from orchestrator.domain.commands import Command, Outcome, RunStep
from orchestrator.domain.events import Event, Status
from orchestrator.domain.evolve import evolve
from orchestrator.domain.node_state import NodeState
from orchestrator.domain.policies import seconds
from orchestrator.domain.saga import Saga, still_fits
from orchestrator.domain.state import SagaState
from orchestrator.errors import HistoryError
from orchestrator.ports import Claim, Codec, Definition, Store
from orchestrator.runtime.attempts import Attempt, Prepared
from orchestrator.runtime.chain import check_chain
from orchestrator.runtime.executor import Subject
from orchestrator.runtime.flows import LiveFlow
from orchestrator.runtime.journal import meta_of

Place = tuple[type[Command], str]
"""What is under way: the kind of command and the path it is for."""


@dataclass(slots=True, eq=False)
class Running:
    """One owned instance in memory. `head` and `hash` are of the last durable event."""

    claim: Claim
    saga: Saga[Any, Any]
    subject: Subject
    state: SagaState
    meta: str
    head: int
    hash: bytes
    fresh: list[Event] = field(default_factory=list)
    attempts: dict[Place, Attempt] = field(default_factory=dict)
    arrived: list[tuple[Command, Outcome]] = field(default_factory=list)
    prepared: list[tuple[Command, Prepared]] = field(default_factory=list)
    overdue: list[Attempt] = field(default_factory=list)
    suspects: tuple[str, ...] = ()
    flows: dict[str, LiveFlow] = field(default_factory=dict)
    last_at: datetime | None = None
    """When the last durable event was recorded."""
    inbox_seq: int = 0
    inbox_read: int = 0
    ending: dict[str, float] = field(default_factory=dict)
    """Children that said that they are about to end, and until when that is believed."""
    look_at: float = 0.0
    linger_until: float = 0.0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def under_way(self) -> set[str]:
        """The steps that run here, or may still run where an earlier owner left them."""
        return {path for kind, path in self.attempts if kind is RunStep}.union(self.suspects)

    @property
    def nodes(self) -> dict[str, list[Any]]:
        """What the code of each flow has asked for so far."""
        return {path: flow.nodes for path, flow in self.flows.items()}

    def begin(self) -> None:
        """Let it start, unless it has; one that was stuck before its start begins when freed."""
        if self.state.status is Status.PENDING:
            self.note(_beginning(self.claim, self.saga, self.subject))

    def note(self, event: Event) -> None:
        """Let *event* happen; it is durable with the next append."""
        evolve(self.state, event)
        self.fresh.append(event)


async def load(
    store: Store, codec: Codec, sagas: Mapping[Definition, Saga[Any, Any]], claim: Claim
) -> Running:
    """Fold the log of the claimed instance. HistoryError when it cannot be gone on with.

    That is so, too, when the log is not what was written: nothing is done on its word then.
    """
    saga = sagas[claim.name, claim.version]
    rows = await store.events.read(claim.saga_id) if claim.head else []
    # More than the claim knows of is a successor's, who will not let us append.
    check_chain(claim.saga_id, rows, max(claim.head, len(rows)))
    state = SagaState(claim.saga_id)
    for row in rows:
        evolve(state, codec.decode_event(row))
    context: dict[str, Any] = json.loads(claim.context)
    _check_shape(claim, saga, state)
    text = claim.input if claim.input is not None else state.input
    if not state.saga and claim.input is None:
        text = await store.reads.input(claim.saga_id) or text
    subject = Subject(claim.saga_id, saga, text, context, claim.head)
    run = Running(
        claim,
        saga,
        subject,
        state,
        meta_of(context),
        claim.head,
        rows[-1].hash if rows else genesis(claim.saga_id),
        last_at=rows[-1].recorded_at if rows else None,
        inbox_seq=claim.inbox_seq,
        # Not every message becomes an event; what was read is remembered with the append.
        inbox_read=max(state.inbox_seen, claim.inbox_seen),
    )
    run.begin()
    return run


def _check_shape(claim: Claim, saga: Saga[Any, Any], state: SagaState) -> None:
    begun = state.fingerprint or claim.fingerprint
    if begun == saga.fingerprint:
        return
    if state.saga and still_fits(begun, saga.fingerprint, _reached(claim, state, begun)):
        return
    raise HistoryError(
        f"begun with shape {begun} of {claim.name} version {claim.version}, but this "
        f"worker has shape {saga.fingerprint}, which differs in what was reached; "
        "give a changed flow a new version, or bring the old one back; then: saga resume ID"
    )


def _reached(claim: Claim, state: SagaState, begun: str) -> int:
    """The last part of the spine that the instance may have come to."""
    # A single part has no index of its own in the paths.
    nothing = -1 if state.root == NodeState() else 0
    known = max((int(s) for s in state.root.children if s.isdigit()), default=nothing)
    # What an earlier owner began last may not be in the log.
    return known if is_clean(claim) else min(known + 1, begun.count("."))


def is_clean(claim: Claim) -> bool:
    """Whether no earlier owner can have left a step under way: first claim, or first after a park."""
    return claim.claims <= 1 and claim.status in (Status.PENDING, Status.WAITING)


def _beginning(claim: Claim, saga: Saga[Any, Any], subject: Subject) -> ev.SagaStarted:
    deadline = None if saga.deadline is None else claim.requested_at + seconds(saga.deadline)
    return ev.SagaStarted(
        claim.name, claim.version, saga.fingerprint, claim.requested_at,
        subject.input, subject.context,
        deadline, claim.parent or "", claim.parent_node,
    )  # fmt: skip
