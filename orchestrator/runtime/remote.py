"""What passes between a step and its participant: the command that is made, the reply that is read."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.commands import (
    Answered,
    Attempted,
    Failed,
    InDoubt,
    Outcome,
    Requested,
    RunCompensation,
    RunProbe,
    RunStep,
    Succeeded,
)
from orchestrator.domain.events import Failure, Json, RemoteReplied
from orchestrator.domain.outcomes import failure_of
from orchestrator.domain.steps import Remote
from orchestrator.errors import InvalidInputError, UnrecordableError
from orchestrator.ports import Codec


def remote_of(command: Attempted) -> Remote | None:
    """What a participant is asked to do; None when it is done here."""
    match command:
        case RunStep(step=step):
            return step.remote
        case RunCompensation(undo=undo):
            return undo.remote
        case RunProbe(probe=probe):
            return probe.remote


def request(command: Attempted, payload: Json, due_at: datetime | None, key: str) -> Requested:
    """The command to a participant; *key* is that of the step."""
    match command:
        case RunStep() | RunProbe():
            return Requested(key, payload, due_at, number=command.number)
        case RunCompensation(step=step, undo=undo, on_doubt=on_doubt):
            # Only who may have heard of the command can know that there is nothing to undo.
            did, undoes = step.remote, undo.remote
            same = did is not None and undoes is not None and did.topic == undoes.topic
            about = key if on_doubt and same else ""
            return Requested(f"{key}/undo", payload, due_at, about, command.number)


def read_reply(codec: Codec, command: Attempted, reply: RemoteReplied) -> Outcome:
    """What a participant's answer says about the attempt, as if its function had run here."""
    if isinstance(command, RunProbe):
        return _answered(codec, command, reply)
    failure = reply.failure or Failure("RemoteFailure", f"the participant says {reply.answer}")
    if reply.answer == "failed":
        return Failed(failure)
    if reply.answer != "succeeded":
        return InDoubt(failure)
    if isinstance(command, RunCompensation):
        return Succeeded()
    try:
        return Succeeded(_output(codec, command, reply))
    except (InvalidInputError, UnrecordableError) as error:
        # The effect happened; only its result is lost. Running it again cannot help.
        return InDoubt(failure_of(error, permanent=True))


def _answered(codec: Codec, command: RunProbe, reply: RemoteReplied) -> Outcome:
    match reply.answer:
        case "happened":
            try:
                return Answered("happened", _output(codec, command, reply))
            except (InvalidInputError, UnrecordableError):
                return Answered("unknown")
        case "not_happened" | "unknown":
            return Answered(reply.answer)
        case _:
            said = f"the participant says {reply.answer}"
            return Failed(reply.failure or Failure("RemoteFailure", said))


def _output(codec: Codec, command: RunStep | RunProbe, reply: RemoteReplied) -> Json:
    wanted = command.step.output_type
    return codec.encode(codec.decode(reply.output or Json("null"), wanted), wanted)
