"""The participants of a simulated world: they carry out commands by the script, and reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.domain.commands import InDoubt
from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.events import Failure, Json, RemoteRequested
from orchestrator.domain.exchange import RemoteReply
from orchestrator.domain.outcomes import failure_of, outcome_of
from orchestrator.domain.steps import Step
from orchestrator.ports import Codec, EventRow, Reply
from orchestrator.testing.journal import Call, Kind
from orchestrator.testing.mortality import Life
from orchestrator.testing.script import Answer, Stub, called, constant
from orchestrator.testing.stage import Stage
from orchestrator.testing.virtual_time import SimulationError

Take = Callable[[RemoteReply], Awaitable[Reply]]

_KINDS: dict[str, Kind] = {"do": "step", "undo": "undo", "probe": "probe"}
_VOID = Failure("Void", "it was undone, or asked for, before it came", permanent=True)


@dataclass(slots=True)
class Participants:
    """All of them at once. They tell repeats by the command's id, and never die."""

    stage: Stage
    codec: Codec
    take: Take
    give_up: Callable[[BaseException], None]
    resources: dict[type, Any]
    done: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """Commands that are not carried out any more, up to which number."""
    _playing: set[asyncio.Task[None]] = field(default_factory=set)

    def hear(self, row: EventRow) -> None:
        """Hear of what became durable: a command is on its way, whatever becomes of its sender."""
        if row.type == RemoteRequested.__name__:
            asked = self.codec.decode_event(row)
            assert isinstance(asked, RemoteRequested)
            # From the loop itself: a task of the sender's would die with it.
            self.stage.loop.call_soon(self._begin, row.saga_id, asked)

    def _begin(self, saga_id: str, asked: RemoteRequested) -> None:
        task = self.stage.loop.create_task(self._carry_out(saga_id, asked))
        self._playing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._playing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.give_up(error)

    async def _carry_out(self, saga_id: str, asked: RemoteRequested) -> None:
        step = self.stage.steps[asked.step]
        call = Call(
            step.name, _KINDS[asked.intent], saga_id, asked.node, asked.attempt, asked.command_id,
            self._given(step, asked), self.stage.loop.now(), 0,
        )  # fmt: skip
        await self.stage.arrivals.pass_one_by_one(Life(0, self.stage.loop), call.what)
        reply = await self._reply(step, call, asked)
        if reply is None:
            self.stage.tell(f"{call.what} is not answered ({call.key})")
            return
        self.stage.tell(f"{call.what} is answered, {reply.answer} ({call.key})")
        await self.take(reply)

    def _given(self, step: Step[Any, Any], asked: RemoteRequested) -> Any:
        undo = step.undo_completed or step.undo_attempted
        takes = undo.takes if asked.intent == "undo" and undo is not None else step.input_type
        return self.codec.decode(asked.payload, takes)

    async def _reply(
        self, step: Step[Any, Any], call: Call, asked: RemoteRequested
    ) -> RemoteReply | None:
        if asked.intent == "probe":
            return self._probed(call, asked)
        known = self.done.get(asked.command_id)
        if known is not None:
            return self._says(asked, "succeeded", known)
        if self.refused.get(asked.command_id, -1) >= asked.number:
            return self._says(asked, "failed", failure=_VOID)
        if asked.undoes and asked.undoes not in self.done:
            self.refused[asked.undoes] = 1_000_000
            self.done[asked.command_id] = Json("null")
            return self._says(asked, "succeeded", Json("null"))
        return await self._called(step, call, asked)

    def _probed(self, call: Call, asked: RemoteRequested) -> RemoteReply:
        self.stage.journal.calls.append(call)
        known = self.done.get(asked.command_id)
        call.outcome = "not_happened" if known is None else "happened"
        if known is None:
            self.refused[asked.command_id] = asked.number
        return self._says(asked, call.outcome, known)

    async def _called(
        self, step: Step[Any, Any], call: Call, asked: RemoteRequested
    ) -> RemoteReply | None:
        """Do as the script says; None when nobody hears of it."""
        stage = self.stage
        stage.journal.calls.append(call)
        for hook in stage.script.begun.pop(call.step, ()) if call.kind == "step" else ():
            hook()
        trouble = stage.trouble_of(call, step)
        if trouble is not None and trouble.error is not None:
            return self._failed(call, asked, trouble.raised())
        if trouble is not None and not trouble.happened:
            return None
        stub = self._stub(step, call.kind, asked.command)
        await asyncio.sleep(stub.takes.total_seconds())
        try:
            call.output = await called(stub.answer, call.input, self._context(call))
            text = self.codec.encode(call.output, step.output_type if call.kind == "step" else Any)
        except SimulationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a stub raises is its answer
            return self._failed(call, asked, error)
        call.outcome = "done"
        stage.journal.apply(call)
        self.done[asked.command_id] = text
        return None if trouble is not None else self._says(asked, "succeeded", text)

    def _stub(self, step: Step[Any, Any], kind: Kind, command: str) -> Stub:
        """What stands in for the participant: the part of the undo may be stubbed by its own name."""
        if kind == "undo":
            return self.stage.script.stubs.get(command) or Stub(_nothing)
        stub = self.stage.script.stand_in(step, kind, self.stage.journal)
        if stub is None:
            name = step.name
            raise SimulationError(
                f"{name} is a remote step, and its participant is not here; say what it does: "
                f"sim.stub({name}, returns=...), or all of them: auto=True"
            )
        return stub

    def _failed(self, call: Call, asked: RemoteRequested, error: BaseException) -> RemoteReply:
        call.outcome = f"{type(error).__name__}: {error}".removesuffix(": ")
        in_doubt = isinstance(outcome_of(error), InDoubt)
        if not in_doubt:
            self.refused[asked.command_id] = asked.number
        answer = "in_doubt" if in_doubt else "failed"
        return self._says(asked, answer, failure=failure_of(error))

    def _context(self, call: Call) -> WorkflowContext:
        return WorkflowContext(
            saga_id=call.saga_id,
            attempt=call.attempt,
            idempotency_key=call.key,
            surroundings=Surroundings(self.resources, self.stage.loop.now),
        )

    def _says(
        self,
        asked: RemoteRequested,
        answer: str,
        output: Json | None = None,
        failure: Failure | None = None,
    ) -> RemoteReply:
        return RemoteReply(
            asked.command_id, asked.intent, asked.number, answer, output, failure, "simulated"
        )


_nothing: Answer = constant(None)
