"""What the steps of a simulated world were called with, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from orchestrator.domain.steps import Step

Kind = Literal["step", "undo", "probe"]

Named = Step[Any, Any] | str
"""A step, or its name."""


def name_of(step: Named) -> str:
    """The name by which histories know a step."""
    return step if isinstance(step, str) else step.name


@dataclass(slots=True, eq=False)
class Call:
    """One call of a step's function, of what undoes it, or of its probe.

    `applied` says that it got to its end, so that a participant would have done what it was asked
    for, whether or not anybody heard of it. Where resources are watched, `changed` is what it did
    to them, `alone` whether nothing else was done meanwhile, `raised` what the function raised.
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
    changed: tuple[str, ...] = ()
    alone: bool = True
    raised: BaseException | None = None

    @property
    def forward_key(self) -> str:
        """The key of the step that this call belongs to, whatever it does about it."""
        return self.key.removesuffix("/undo")

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
        """Note that *call* has come to its end."""
        call.applied = True
        self.done.append(call)

    def first(self, kind: Kind) -> list[Call]:
        """The calls that were the first to come to their end under their key."""
        found: dict[str, Call] = {}
        for call in self.done:
            if call.kind == kind:
                found.setdefault(call.key, call)
        return list(found.values())

    def repeats(self) -> list[Call]:
        """The calls that came to their end when another one had under the same key."""
        firsts = {id(call) for kind in get_args(Kind) for call in self.first(kind)}
        return [call for call in self.done if id(call) not in firsts]
