"""Steps that are called by name in a test: one that does not exist is a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from orchestrator.domain.flow import FlowNode
from orchestrator.domain.saga import Saga, walk
from orchestrator.testing.virtual_time import SimulationError


def check_names(names: Iterable[str], sagas: Collection[Saga[Any, Any]]) -> None:
    """Raise SimulationError for a name that no step of *sagas* has, with the nearest that one has.

    Nobody knows beforehand what the code of a `@flow` will run, so there every name may be right.
    """
    if any(isinstance(node, FlowNode) for saga in sagas for node in walk(saga.tree)):
        return
    known = sorted({name for saga in sagas for name in saga.steps})
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
        where = " and ".join(sorted({repr(saga.name) for saga in sagas}))
        raise SimulationError(
            f"there is no step {name!r} in saga {where}; {hint} (a step of a saga that is started "
            "later is named by itself, not by a text)"
        )
