"""Steps and sagas for the tests of the rules: names that say how a step is taken back."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

from orchestrator.domain.definition import Primitive
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Step, step
from orchestrator.errors import DefinitionWarning


async def act(value: Any, ctx: Any) -> Any:
    return value


async def take_back(done: Any, ctx: Any) -> None:
    return None


async def ask(tried: Any, ctx: Any) -> Any:
    return None


def plain(name: str, **options: Any) -> Step[Any, Any]:
    """A step that nothing undoes."""
    decorate: Any = step(name=name, **options)
    made: Step[Any, Any] = decorate(act)
    return made


def kept(name: str, **options: Any) -> Step[Any, Any]:
    """A step with a compensation."""
    return plain(name, **options).undo(take_back)


def doubtable(name: str, **options: Any) -> Step[Any, Any]:
    """A step with a compensation on doubt only."""
    made = plain(name, **options)
    made.compensation_on_doubt(take_back)
    return made


def probed(name: str, **options: Any) -> Step[Any, Any]:
    """A step with a compensation, and a probe that says whether it happened."""
    made = kept(name, **options)
    made.probe(ask)
    return made


def saga(
    body: Primitive[Any, Any], name: str = "s", *, deadline: timedelta | float | None = None
) -> Saga[Any, Any]:
    """A saga of version 1; that it may park somewhere is what the tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefinitionWarning)
        return Saga(name, 1, body, deadline)
