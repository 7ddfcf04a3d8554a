"""Sagas whose steps have effects in the ledger: some written by hand, many made by chance."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.branching import Fallback, each
from orchestrator.domain.definition import Parallel, Primitive, Pure, Sequential
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.saga import Saga, walk
from orchestrator.domain.waiting import Wait, sleep
from orchestrator.domain.wrappers import Retry
from orchestrator.errors import DefinitionWarning, StepError
from tests.simulation.effects import GO, effect, refusing
from tests.simulation.made import made as draw

MADE = 120
"""How many sagas chance has made."""


@dataclass(frozen=True, slots=True)
class Case:
    """A saga and what a checker has to know of it."""

    saga: Saga[Any, Any]
    side_by_side: bool
    """Whether steps may run beside each other, so that there is no one order."""
    waits: bool
    children: tuple[Saga[Any, Any], ...]
    """Those that only the code of a flow knows are here too."""


# ---------------------------------------------------------------------------- by hand


def _transfer() -> Primitive[Any, Any]:
    return effect("reserve") >> effect("debit", "doubt") >> effect("credit", "undo ask")


def _declined() -> Primitive[Any, Any]:
    return effect("hold") >> effect("pay", "doubt", retries=1) >> refusing()


def _order() -> Primitive[Any, Any]:
    stock, pay, parcel = effect("stock"), effect("take", "doubt"), effect("parcel", "undo ask")
    both: Primitive[Any, Any] = Parallel((pay, parcel))
    return stock >> both >> effect("receipt", "plain", retries=3)


def _approval() -> Primitive[Any, Any]:
    return effect("apply") >> GO.wait() >> sleep(1) >> effect("grant", "doubt")


def _late_approval() -> Primitive[Any, Any]:
    return effect("apply") >> GO.wait(within=3) >> effect("grant", "doubt")


def _pivot() -> Primitive[Any, Any]:
    body = effect("prepare") >> effect("charge", "undo ask").pivot()
    return body >> Retry(effect("ship", "plain"), 50, initial=0.2)


def _parent() -> Primitive[Any, Any]:
    inside = Saga("inside", 1, effect("in-1", "doubt") >> GO.wait() >> effect("in-2"))
    return effect("before") >> inside.child() >> effect("after", "doubt")


def _undone_parent() -> Primitive[Any, Any]:
    inside = Saga("inside-undone", 1, effect("in-3") >> effect("in-4", "doubt"))
    return effect("before") >> inside.child() >> refusing()


def _ledgers() -> Primitive[Any, Any]:
    return (
        effect("t1", "undo transactional")
        >> effect("t2", "undo transactional")
        >> effect("t3", "undo")
    )


def _ledgers_undone() -> Primitive[Any, Any]:
    return effect("t4", "undo transactional") >> effect("t5", "doubt") >> refusing()


def _scoped() -> Primitive[Any, Any]:
    part = effect("try", "doubt") >> effect("build", "undo doubt")
    return effect("first") >> Retry(part, 2, initial=0.2) >> effect("last")


def _alternative() -> Primitive[Any, Any]:
    card: Primitive[Any, Any] = effect("card", "doubt") >> effect("confirm", "undo doubt")
    return effect("cart") >> Fallback(card, [effect("by-hand")])


def _many() -> Primitive[Any, Any]:
    listing: Primitive[Any, Any] = Pure("listing", lambda value: [1, 2, 3], Any, Any)
    return Sequential((listing, each(effect("item", "doubt"), concurrency=2)))


def _once() -> Primitive[Any, Any]:
    return effect("open") >> effect("shot", "once doubt") >> effect("close")


@flow
async def _talk(value: Any, f: Flow) -> Any:
    value = await f.run(_SAID, value)
    await f.sleep(1)
    try:
        return await f.run(_ASKED, value)
    except StepError:
        return await f.run(_INSTEAD, value)


_SAID, _ASKED, _INSTEAD = effect("said"), effect("asked", "doubt"), effect("instead")

BY_HAND = {
    "transfer": _transfer,
    "declined": _declined,
    "order": _order,
    "approval": _approval,
    "late-approval": _late_approval,
    "pivot": _pivot,
    "parent": _parent,
    "undone-parent": _undone_parent,
    "ledgers": _ledgers,
    "ledgers-undone": _ledgers_undone,
    "scoped": _scoped,
    "alternative": _alternative,
    "many": _many,
    "once": _once,
    "talk": lambda: effect("begin") >> _talk >> effect("end"),
    "short-of-time": lambda: effect("slow") >> sleep(2) >> effect("slower", "doubt"),
}
DEADLINES = {"short-of-time": 3}


@functools.cache
def case(name: str) -> Case:
    """One of `BY_HAND`, or `made-N`. Made once: a saga is a value."""
    made = name.startswith("made-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefinitionWarning)
        body, children, beside = draw(int(name[5:])) if made else (BY_HAND[name](), [], False)
        deadline = DEADLINES.get(name) or (5 if made and int(name[5:]) % 7 == 0 else None)
        saga = Saga(name, 1, body, deadline)
    nodes = list(walk(saga.tree))
    return Case(
        saga,
        beside or any(isinstance(n, Parallel) or type(n).__name__ == "Each" for n in nodes),
        any(isinstance(n, Wait) or type(n).__name__ == "FlowNode" for n in nodes),
        tuple(children),
    )


NAMES = (*BY_HAND, *(f"made-{number}" for number in range(MADE)))
