"""A saga that the workers of `tests.scale.flows` do not know."""

from __future__ import annotations

from orchestrator import Saga
from tests.scale.flows import echo

lost = Saga("lost", 1, echo)
