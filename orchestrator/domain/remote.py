"""`remote`: a step that a participant elsewhere carries out, by command and reply."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn, get_origin

from orchestrator.domain.bounds import checked_count, checked_duration, checked_name, shown
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import A, B, Primitive, Seconds
from orchestrator.domain.steps import LEFT_OUT, Probe, Remote, Step
from orchestrator.errors import DefinitionError


def remote(
    command: str,
    *,
    input: type[A],
    output: type[B],
    topic: str,
    timeout: Seconds | None = LEFT_OUT,
    retries: int = 0,
    probe: bool = True,
    name: str | None = None,
) -> Step[A, B]:
    """Make a step of a command that goes to a participant through *topic*; its reply is the output.

    The instance waits outside of memory meanwhile. Each attempt carries the same id. When no reply
    comes within *timeout*, it may have happened: once no retry is left the participant is asked
    (unless *probe* is False), and else the undo on doubt decides, as for any step. The step is
    called *name*, or as its command.
    """
    named = checked_name(command if name is None else name, "step")
    place = f"remote step {named!r}"
    checked_name(command, "command")
    checked_name(topic, "topic")
    for what, kind in (("input", input), ("output", output)):
        _check_type(kind, f"{place}: {what}")
    limit: timedelta | None = None
    if timeout is not None and timeout is not LEFT_OUT:
        limit = checked_duration(timeout, f"{place}: timeout (None means no limit)")
    checked_count(retries, f"{place}: retries", least=0)
    sent = Remote(command, topic)
    made: Step[Any, Any] = Step(named, _elsewhere, input, output, retries, limit, timeout is None)
    return replace(made, remote=sent, asks=Probe(_elsewhere, limit, remote=sent) if probe else None)


async def _elsewhere(given: object, ctx: WorkflowContext) -> NoReturn:
    raise TypeError("a remote step has no function here; its participant has it")


def _check_type(kind: object, place: str) -> None:
    found = get_origin(kind) or kind
    if kind is not None and (not isinstance(found, type) or issubclass(found, Primitive)):
        raise DefinitionError(
            f"{place} is a type, not {shown(kind)}; use a pydantic model, a dataclass or a JSON type"
        )
