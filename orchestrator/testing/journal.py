"""What the steps of a simulated world were called with, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from orchestrator.domain.steps import Step
from orchestrator.testing.snapshot import Moved, told

Kind = Literal["step", "undo", "probe"]

_MANY = 50

T = TypeVar("T", covariant=True)

Named = Step[Any, Any] | str
"""A step, or its name."""


class ByStep(Protocol[T]):
    """Something for each of several steps: a mapping, whatever steps its keys are."""

    def items(self) -> Iterable[tuple[Named, T]]: ...


def name_of(step: Named) -> str:
    """The name by which histories know a step."""
    return step if isinstance(step, str) else step.name


@dataclass(slots=True, eq=False)
class Call:
    """One call of a step's function, of what undoes it, or of its probe.

    `applied` says that it got to its end, so that a participant would have done what it was asked
    for, whether or not anybody heard of it; or that it broke off in doubt, having changed something.
    Where resources are watched, `moved` is what it did to them (each place with its value before and
    after), `alone` whether nothing else was done meanwhile, `raised` what the function raised.
    """

    step: str
    kind: Kind
    saga_id: str
    node: str
    attempt: int
    key: str
    input: Any
    at: datetime
    process: int
    applied: bool = False
    outcome: str = "under way"
    output: Any = None
    moved: Moved = field(default_factory=dict)
    alone: bool = True
    raised: BaseException | None = None

    @property
    def forward_key(self) -> str:
        """The key of the step that this call belongs to, whatever it does about it."""
        return self.key.removesuffix("/undo")

    @property
    def changed(self) -> tuple[str, ...]:
        """What it did to the resources, a line for each place."""
        return told(self.moved)

    @property
    def whole(self) -> bool:
        """Whether it got to its end, or broke off before."""
        return self.applied and self.raised is None

    @property
    def what(self) -> str:
        """The call in words."""
        return self.step if self.kind == "step" else f"the {self.kind} of {self.step}"


@dataclass(slots=True)
class Journal:
    """All calls, in the order in which they began; `done` in that in which they took effect."""

    calls: list[Call] = field(default_factory=list)
    done: list[Call] = field(default_factory=list)

    def of(self, step: Named, kind: Kind = "step") -> tuple[Call, ...]:
        """The calls of one step."""
        name = name_of(step)
        return tuple(c for c in self.calls if c.step == name and c.kind == kind)

    def effects(self, step: Named, kind: Kind = "step") -> int:
        """How many effects there were, counted as one who honours the idempotency key counts."""
        return len({call.key for call in self.of(step, kind) if call.applied})

    def apply(self, call: Call) -> None:
        """Note that *call* has taken effect."""
        call.applied = True
        self.done.append(call)

    def first(self, kind: Kind) -> list[Call]:
        """The calls that were the first to take effect under their key."""
        found: dict[str, Call] = {}
        for call in self.done:
            if call.kind == kind:
                found.setdefault(call.key, call)
        return list(found.values())

    def in_vain(self, saga_id: str) -> list[Call]:
        """The calls of an undo that failed many times in a row; none when it did not."""
        calls = [call for call in self.calls if call.saga_id == saga_id][-_MANY:]
        same = {(call.kind, call.key, call.applied) for call in calls}
        return calls if len(calls) == _MANY and same == {("undo", calls[0].key, False)} else []

    def repeats(self) -> list[Call]:
        """The calls that came to their end when another one had under the same key."""
        ended: set[tuple[Kind, str]] = set()
        found: list[Call] = []
        for call in self.done:
            if (call.kind, call.key) in ended:
                found.append(call)
            if call.whole:
                ended.add((call.kind, call.key))
        return found
