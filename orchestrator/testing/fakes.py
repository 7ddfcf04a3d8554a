"""The fakes that a simulation uses in the place of real services: fresh ones for every run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.testing.virtual_time import SimulationError

Fakes = Mapping[type, Any] | Callable[[], Mapping[type, Any]]
"""The resources of a saga's steps by their type, or what makes them."""


def copied(fakes: Fakes | None) -> dict[type, Any]:
    """Fakes that no earlier run has touched: made, or copied with all that they hold."""
    if fakes is None:
        return {}
    if callable(fakes):
        return dict(fakes())
    try:
        return copy.deepcopy(dict(fakes))
    except Exception as error:
        names = ", ".join(kind.__name__ for kind in fakes)
        raise SimulationError(
            f"each run needs fresh resources, and these cannot be copied ({names}: {error}); give "
            "a function that makes them: resources=lambda: {Bank: FakeBank()}"
        ) from error
