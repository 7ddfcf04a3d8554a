"""The vocabulary of the rules: a place of the tree, how far it has come, and how plans add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.commands import Guard, Plan, WatchChild
from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import Failure, Json
from orchestrator.domain.node_state import NodeState

Halted = frozenset[str] | None
"""None: go on. A set: these steps may be under way and settle; nothing else begins."""

Flows = Mapping[str, Sequence[Primitive[Any, Any]]]
"""What the code of each flow has asked for so far, by the flow's path."""


# Not frozen, because a plan makes dozens of these, and freezing triples what each costs.


@dataclass(slots=True)
class Done:
    """It is done, and this is its output."""

    output: Json


@dataclass(slots=True)
class Broken:
    """It failed. `path` is what would have to run again."""

    failure: Failure
    path: str = ""
    not_begun: bool = False


Progress = Done | Broken | Plan

NOT_BEGUN = Broken(Failure("Halted", "not begun, because the saga turned round"), not_begun=True)


CUT_OFF = Failure("CancelledError", "cut off, because a branch beside it failed")


@dataclass(frozen=True, slots=True)
class Around:
    """What a place inherits from all that is round it.

    `broke` says why no further step begins, `spared` which ones had begun by then.
    """

    deadline: datetime | None = None
    halted: Halted = None
    cut: bool = False
    guards: tuple[Guard, ...] = ()
    broke: Failure | None = None
    spared: frozenset[str] = frozenset()
    retried: bool = False


@dataclass(slots=True)
class Place:
    """One node of the tree, its state, its path and input, and what is round it.

    `timeout` bounds each attempt of the one step below. `retrying` says that a failure of it
    will be retried; `pivot` that it is the pivot.
    """

    node: Primitive[Any, Any]
    state: NodeState
    path: str
    input: Json
    around: Around
    timeout: timedelta | None = None
    retrying: bool = False
    pivot: bool = False

    def below(
        self, node: Primitive[Any, Any], segment: str, input: Json, around: Around | None = None
    ) -> Place:
        """A part of it, which knows nothing of what adapts it here."""
        return Place(
            node,
            self.state.child(segment),
            f"{self.path}/{segment}",
            input,
            around or self.around,
        )

    def inside(
        self, *, input: Json | None = None, around: Around | None = None, segment: str = "0"
    ) -> Place:
        """The one child of an adapter: all that is known here holds there too."""
        return Place(
            self.node.children[0],
            self.state.child(segment),
            f"{self.path}/{segment}",
            self.input if input is None else input,
            around or self.around,
            self.timeout,
            self.retrying,
            self.pivot,
        )

    def halted_by(self, halted: Halted, *, cut: bool = False) -> Around:
        """What is round its parts when they are halted too."""
        if halted is None:
            return self.around
        return replace(
            self.around, halted=both(self.around.halted, halted), cut=self.around.cut or cut
        )


def both(one: Halted, other: Halted) -> Halted:
    """Halted by either: only what both allow goes on."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    """The first of two times, None being never."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def merged(plans: Sequence[Plan]) -> Plan:
    """All that the branches want; one that is stuck speaks when the others have nothing to do."""
    if len(plans) == 1:
        return plans[0]
    commands = tuple(command for part in plans for command in part.commands)
    wanted = [event for part in plans for event in part.decisions]
    stuck = tuple(event for event in wanted if isinstance(event, ev.SagaStuck))
    decisions = tuple(event for event in wanted if not isinstance(event, ev.SagaStuck))
    # A child may take for ever, and a person is needed now.
    if stuck and not decisions and all(isinstance(c, WatchChild) for c in commands):
        return Plan(stuck[:1])
    wake_at: datetime | None = None
    for part in plans:
        wake_at = earliest(wake_at, part.wake_at)
    return Plan(decisions, commands, wake_at)


def grouped(broken: Sequence[Broken], *, all_permanent: bool = False) -> Broken:
    """One failure of several: none is lost. What was merely not begun says nothing beside it."""
    real = [part for part in broken if not part.not_begun] or list(broken[:1])
    if len(real) == 1:
        return real[0]
    return Broken(group([part.failure for part in real], all_permanent=all_permanent), real[0].path)


def group(failures: Sequence[Failure], *, all_permanent: bool = False) -> Failure:
    """Failures as one. One permanent among them makes it permanent, unless all have to be."""
    if len(failures) == 1:
        return failures[0]
    waits = [f.retry_after for f in failures if f.retry_after is not None]
    permanent = [f.permanent for f in failures]
    return Failure(
        "ExceptionGroup",
        "; ".join(f"{f.type}: {f.message}" for f in failures[:_SPELLED])
        + (f"; and {len(failures) - _SPELLED} more" if len(failures) > _SPELLED else ""),
        ("builtins.ExceptionGroup",),
        all(permanent) if all_permanent else any(permanent),
        max(waits, default=None),
        tuple(failures[:_KEPT]),
    )


_SPELLED, _KEPT = 10, 100


def matches(failure: Failure, on: tuple[type[BaseException], ...]) -> bool:
    """Whether a policy that is narrowed to the exceptions *on* is meant by *failure*."""
    if not on:
        return True
    wanted = {f"{kind.__module__}.{kind.__qualname__}" for kind in on}
    return not wanted.isdisjoint(failure.kinds) or any(matches(f, on) for f in failure.causes)


def timed_out(message: str) -> Failure:
    """The failure of what took too long."""
    kinds = tuple(f"builtins.{kind.__name__}" for kind in TimeoutError.__mro__[:-1])
    return Failure("TimeoutError", message, kinds)
