"""The way back: what is undone next, in reverse order of completion; who is asked, who is stuck."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.branching import Each, Fallback, Loop, Router
from orchestrator.domain.commands import (
    Command,
    Plan,
    RunCompensation,
    RunProbe,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.definition import Parallel, Primitive, Sequential
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.node_state import Asked, NodeState, Settled
from orchestrator.domain.planning import Around, Done, Flows, Place, Progress, merged, timed_out
from orchestrator.domain.saga import Child, Saga
from orchestrator.domain.state import SagaState
from orchestrator.domain.steps import Step, Undo
from orchestrator.domain.wrappers import Using


class FlowNotLoadedError(Exception):
    """The code of a flow has to be replayed before its parts can be known."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command


@dataclass(frozen=True, slots=True)
class Backward(ABC):
    """Undoes what is below a place. `Forward` adds how far things have come."""

    saga: Saga[Any, Any]
    state: SagaState
    now: datetime
    flows: Flows

    @abstractmethod
    def progress(self, place: Place) -> Progress:
        """How far the flow has come below *place*."""

    @abstractmethod
    def resume_flow(self, place: Place) -> Command:
        """The command that runs the code of the flow at *place*."""

    def unwind(self, known: NodeState, path: str, scope: str | None = None) -> Plan | None:
        """The next undo at or below *path*, whose state is *known*; None when it is clean.

        It is undone because *scope* failed, which is *path* unless said, or the whole saga.
        """
        if scope is None:
            scope = "" if path == self.saga.name else path
        passed: list[str] = []
        oldest: dict[str, str] = {}
        for entry in reversed(known.to_undo or {}):
            if any(entry.startswith(block) and entry != last for block, last in oldest.items()):
                continue
            try:
                node, block = self._look(entry, path)
                # A scope may yet go on, when a probe says that it happened: nothing runs beside that.
                if block is not None and not scope:
                    # As one, where its oldest part stands: what is undone side by side is then the
                    # last there is, until all of it is done.
                    oldest[f"{block}/"] = next(iter(self.state.at(block).to_undo or {}))
                    if entry != oldest[f"{block}/"]:
                        continue
                    if (plan := self._side_by_side(block, scope)) is not None:
                        return plan
                    continue
                plan = self._undo(entry, node, tuple(passed), scope)
            except FlowNotLoadedError as missing:
                return Plan(commands=(missing.command,))
            if plan is not None:
                return plan
            passed.append(entry)
        return None

    def _side_by_side(self, block: str, scope: str) -> Plan | None:
        branches = self.state.at(block).children
        plans = [self.unwind(known, f"{block}/{key}", scope) for key, known in branches.items()]
        found = [plan for plan in plans if plan is not None]
        return merged(found) if found else None

    def _look(self, entry: str, prefix: str) -> tuple[Primitive[Any, Any], str | None]:
        """The node at *entry*, and the outermost block below *prefix* that is undone side by side."""
        node, path, block = self.saga.tree, self.saga.name, None
        for segment in entry.split("/")[1:]:
            if (
                block is None
                and isinstance(node, Parallel)
                and node.undo == "parallel"
                and (path == prefix or path.startswith(f"{prefix}/"))
            ):
                block = path
            node, path = self._part(node, path, segment), f"{path}/{segment}"
        return node, block

    def _part(self, node: Primitive[Any, Any], path: str, segment: str) -> Primitive[Any, Any]:
        """The part of *node* that a path segment leads to."""
        index = int(segment.partition("@")[0].partition("#")[0])
        if isinstance(node, FlowNode):
            asked = self.flows.get(path, ())
            if index >= len(asked):
                raise FlowNotLoadedError(self.resume_flow(self.place_at(path)))
            return asked[index]
        return node.children[0] if isinstance(node, Each | Loop) else node.children[index]

    def place_at(self, path: str) -> Place:
        """The place of *path*, with the input that it had."""
        place = Place(self.saga.tree, self.state.root, self.saga.name, self.state.input, Around())
        for segment in path.split("/")[1:]:
            part = self._part(place.node, place.path, segment)
            place = place.below(part, segment, self._input_of(place, segment))
        return place

    def _input_of(self, place: Place, segment: str) -> Json:
        """The input of the part of *place* that *segment* leads to, from what was recorded."""
        index = int(segment.partition("@")[0].partition("#")[0])
        known = place.state
        match place.node:
            case Sequential(steps):
                return self._passed_on(place, steps[:index])
            case Each() if known.fan_out is not None:
                return known.fan_out.items[index]
            case Loop():
                iteration = int(segment.partition("#")[2] or 1)
                return self.input_of_iteration(place, iteration)
            case FlowNode():
                return known.calls[index].input
            case Using():
                return known.bound or place.input
            case Router() | Fallback() | _:
                return place.input

    def _passed_on(self, place: Place, steps: Sequence[Primitive[Any, Any]]) -> Json:
        """What the last of *steps*, with which the sequence at *place* begins, gave."""
        known = place.state.passed_on
        for number in range(len(known), len(steps)):
            text = known[-1] if known else place.input
            done = self.progress(place.below(steps[number], str(number), text))
            if not isinstance(done, Done):
                return text
            known.append(done.output)
        return known[len(steps) - 1] if steps else place.input

    def input_of_iteration(self, place: Place, iteration: int) -> Json:
        """The input of an iteration of a loop: the output of the one before."""
        if iteration <= 1:
            return place.input
        return place.state.calls[iteration - 2].input

    def _undo(
        self, path: str, node: Primitive[Any, Any], passed: tuple[str, ...], scope: str
    ) -> Plan | None:
        known = self.state.at(path)
        if isinstance(node, Child):
            return self._undo_child(path, node, known, passed, scope)
        if not isinstance(node, Step):
            return None
        completed = known.settled is Settled.SUCCEEDED
        if not completed and node.undo_of_completed is not None:
            asked = self.probe(path, node, known, lambda: self.place_at(path).input)
            if asked is not None:
                return asked
        undo = node.undo_of_completed if completed else node.undo_attempted
        if undo is not None:
            return self._undo_step(path, known, node, undo, passed, scope)
        if not completed and node.undo_completed is not None:
            return Plan((unsettled(path, node, known),))
        return None

    def probe(
        self, path: str, step: Step[Any, Any], known: NodeState, input: Callable[[], Json]
    ) -> Plan | None:
        """Ask whether a step in doubt happened; None when that is no use, or was answered."""
        if step.asks is None or not known.doubtful or known.answer in ("unknown", "happened"):
            return None
        if known.probe_due_at is not None and self.now < known.probe_due_at and not known.answer:
            return Plan(wake_at=known.probe_due_at)
        if known.answer == "failed":
            if known.probes > step.asks.retries:
                return None
            delay = step.asks.backoff.delay(known.probes, f"{self.state.saga_id}/{path}/probe")
            due = self.now + delay
            return Plan((ev.ProbeRetryScheduled(path, step.name, known.probes + 1, due),))
        attempt = known.probes + 1
        asked = known.asked
        if asked is not None and asked.intent == "probe" and known.replied is None:
            if (late := self.no_reply(asked)) is None:
                return Plan(wake_at=asked.due_at)
            return Plan((ev.ProbeAnswered(path, step.name, attempt, "failed", None, late),))
        ask = RunProbe(
            path, step, step.asks, attempt, input(), self.state.outputs, known.replied,
            known.sent + 1,
        )  # fmt: skip
        return Plan(commands=(ask,))

    def no_reply(self, asked: Asked) -> Failure | None:
        """Why a reply is not waited for any more; None while it is."""
        if asked.due_at is None or self.now < asked.due_at:
            return None
        return timed_out(f"no reply to command {asked.command_id} in time")

    def _undo_child(
        self,
        path: str,
        node: Child[Any, Any],
        known: NodeState,
        passed: tuple[str, ...],
        scope: str,
    ) -> Plan | None:
        fellow = known.fellow
        if fellow is None:
            return None
        if known.undo_failure is not None:
            why = known.undo_failure
            return Plan((ev.SagaStuck(path, node.saga.name, f"{why.type}: {why.message}"),))
        if not fellow.undoing:
            return Plan(commands=(UndoChild(path, fellow.child_id),))
        watch = WatchChild(
            path, node.saga.name, fellow.child_id, undone=True, passed=passed, scope=scope
        )
        return Plan(commands=(watch,))

    def _undo_step(
        self,
        path: str,
        known: NodeState,
        step: Step[Any, Any],
        undo: Undo,
        passed: tuple[str, ...],
        scope: str,
    ) -> Plan:
        if known.undo_failure is not None:
            return Plan((self._after_failed_undo(path, known, step, undo, known.undo_failure),))
        if known.undo_due_at is not None and self.now < known.undo_due_at:
            return Plan(wake_at=known.undo_due_at)
        attempt, asked = known.undo_attempts + 1, known.asked
        if asked is not None and asked.intent == "undo" and known.replied is None:
            if (late := self.no_reply(asked)) is None:
                return Plan(wake_at=asked.due_at)
            return Plan((ev.CompensationFailed(path, step.name, attempt, late),))
        output = known.output if known.settled is Settled.SUCCEEDED else None
        command = RunCompensation(
            path,
            step,
            undo,
            attempt,
            known.edited_input or self.place_at(path).input,
            known.edited_output or output,
            self.state.outputs,
            on_doubt=undo is step.undo_attempted,
            passed=passed,
            scope=scope,
            reply=known.replied,
            number=known.sent + 1,
        )
        return Plan(commands=(command,))

    def _after_failed_undo(
        self, path: str, known: NodeState, step: Step[Any, Any], undo: Undo, failure: Failure
    ) -> Event:
        policy = undo.policy
        since = known.undo_since or self.now
        tried = known.undo_attempts
        used_up = policy.max_retries is not None and tried > policy.max_retries
        if failure.permanent or used_up or self.now - since >= policy.give_up_after:
            return ev.SagaStuck(
                path,
                step.name,
                f"the compensation of {step.name} failed {tried} time(s), "
                f"the last with {failure.type}: {failure.message}",
            )
        delay = policy.backoff.delay(tried, f"{self.state.saga_id}/{path}/undo")
        if failure.retry_after is not None:
            delay = max(delay, timedelta(seconds=failure.retry_after))
        return ev.CompensationRetryScheduled(path, step.name, tried + 1, self.now + delay, since)


def iteration_segment(iteration: int) -> str:
    """The path segment of an iteration of a loop, counted from 1."""
    return "0" if iteration <= 1 else f"0#{iteration}"


def unsettled(path: str, step: Step[Any, Any], known: NodeState) -> Event:
    """Nobody knows whether *step* happened, and nothing says how it would be undone."""
    why = f" ({known.failure.type}: {known.failure.message})" if known.failure else ""
    return ev.SagaStuck(
        path,
        step.name,
        f"nobody knows whether {step.name} happened{why}, and it declares no "
        f"compensation_on_doubt; find out, then: saga resolve ID {step.name} --happened, or "
        "--not-happened",
    )
