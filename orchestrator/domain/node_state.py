"""What is known of one place of a tree, and of the lists, children and requests below it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from orchestrator.domain.events import Failure, Json, RemoteReplied

_DECODER = json.JSONDecoder()
_BLANKS = " \t\n\r"


class Settled(Enum):
    """How the last attempt of a leaf ended."""

    SUCCEEDED = auto()
    FAILED = auto()
    IN_DOUBT = auto()


@dataclass(slots=True)
class FanOut:
    """The items of a list: which are under way, done, failed. One event touches one item only."""

    items: tuple[Json, ...]
    concurrency: int
    admitted: int
    live: dict[int, None]
    outputs: list[Json | None]
    failures: dict[int, Failure] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Json, concurrency: int) -> FanOut:
        split = split_list(items)
        admitted = min(concurrency, len(split))
        return cls(
            split, concurrency, admitted, dict.fromkeys(range(admitted)), [None] * len(split)
        )

    def succeeded(self, item: int, output: Json) -> None:
        self.live.pop(item, None)
        self.outputs[item] = output
        if not self.failures and self.admitted < len(self.items):
            self.live[self.admitted] = None
            self.admitted += 1

    def failed(self, item: int, failure: Failure) -> None:
        self.live.pop(item, None)
        self.failures[item] = failure

    def rearm(self) -> None:
        """Let what failed, and what was not begun because of it, run again."""
        self.live.update(dict.fromkeys(sorted(self.failures)))
        self.failures = {}
        while len(self.live) < self.concurrency and self.admitted < len(self.items):
            self.live[self.admitted] = None
            self.admitted += 1


@dataclass(slots=True)
class Fellow:
    """A child saga: an instance of its own."""

    child_id: str
    key: str
    input: Json
    started: bool = False
    cancelled: bool = False
    undoing: bool = False
    status: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """A request of a flow, as it was recorded."""

    request: str
    input: Json


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was sent to a participant and is not answered yet."""

    intent: str
    command_id: str
    attempt: int
    number: int
    due_at: datetime | None


@dataclass(slots=True)
class NodeState:
    """What is known of one place of the tree; its children by path segment."""

    children: dict[str, NodeState] = field(default_factory=dict)
    step: str = ""
    settled: Settled | None = None
    output: Json | None = None
    failure: Failure | None = None
    attempts: int = 0
    announced: int = 0
    doubtful: bool = False
    retries: int = 0
    """Retries that count against the policy."""
    runs: int = 0
    """Runs begun again, ever: a scope's paths are numbered by it."""
    since: datetime | None = None
    due_at: datetime | None = None
    held_until: datetime | None = None
    deadline: datetime | None = None
    halted: frozenset[str] | None = None
    cut: bool = False
    cost: float = 0.0
    to_undo: dict[str, None] | None = None
    """Paths at or below this place that are to be undone, the oldest first."""
    undone: bool = False
    unwinding: bool = False
    """As a scope it failed, and something of it was undone already: it cannot go on."""
    undo_attempts: int = 0
    undo_failure: Failure | None = None
    undo_due_at: datetime | None = None
    undo_since: datetime | None = None
    sent: int = 0
    """Commands sent to participants from here, ever."""
    asked: Asked | None = None
    replied: RemoteReplied | None = None
    probes: int = 0
    answer: str = ""
    probe_due_at: datetime | None = None
    bound: Json | None = None
    route: str = ""
    taken: int = 0
    failures: tuple[Failure, ...] = ()
    iteration: int = 0
    forgiven: int = 0
    holds: bool | None = None
    waiting: bool = False
    fan_out: FanOut | None = None
    fellow: Fellow | None = None
    calls: list[Called] = field(default_factory=list)
    """The requests of a flow; the inputs of a loop's iterations, from the second on."""
    edited_input: Json | None = None
    edited_output: Json | None = None
    done: Json | None = field(default=None, compare=False, repr=False)
    """The output of a composite that is done: worked out once from what is below it."""
    passed_on: list[Json] = field(default_factory=list, compare=False, repr=False)
    """The outputs of a sequence's parts so far, worked out once."""

    def child(self, segment: str) -> NodeState:
        """The state of a child; one that nothing happened to is the blank, which nobody changes."""
        return self.children.get(segment, BLANK)

    def rearm(self) -> None:
        """Forget how the last attempt ended, so that what has not succeeded below runs again."""
        if self.settled is not Settled.SUCCEEDED:
            self.settled = None
        self.forgive()
        self.taken, self.failures = 0, ()
        self.held_until = self.since = None
        self.forget_probes()
        if self.fan_out is not None:
            self.fan_out.rearm()
        if self.fellow is not None and self.settled is not Settled.SUCCEEDED:
            self.fellow = None
        parts = self.children
        if self.calls and not self.iteration:
            # The code of a flow has gone on from what its earlier requests came to.
            last = str(len(self.calls) - 1)
            parts = {last: parts[last]} if last in parts else {}
        for child in parts.values():
            child.rearm()

    def forgive(self) -> None:
        """Count retries, iterations and time-outs anew."""
        self.retries, self.forgiven = 0, self.iteration
        self.due_at = self.deadline = self.halted = None
        self.cut = False

    def forget_probes(self) -> None:
        """Let a probe be asked again."""
        self.probes, self.answer, self.probe_due_at = 0, "", None
        self.forget_asking()

    def forget_asking(self) -> None:
        """What a participant was asked is answered, or is not waited for any more."""
        self.asked = self.replied = None


BLANK = NodeState()


def split_list(text: Json) -> tuple[Json, ...]:
    """The items of a JSON list, each as it is written. Raises ValueError when it is none."""
    place = _skip(text, 0)
    if not text.startswith("[", place):
        raise ValueError("not a JSON list")
    items: list[Json] = []
    place = _skip(text, place + 1)
    while not text.startswith("]", place):
        _, end = _DECODER.raw_decode(text, place)
        items.append(Json(text[place:end]))
        place = _skip(text, end)
        if text.startswith(",", place):
            place = _skip(text, place + 1)
    return tuple(items)


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANKS:
        place += 1
    return place
