"""The way forward: one rule for each primitive says how far it has come, and what it needs next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from orchestrator.domain import events as ev
from orchestrator.domain.backward import Backward, iteration_segment, unsettled
from orchestrator.domain.branching import Each, Fallback, Loop, Nothing, Router
from orchestrator.domain.commands import (
    CacheGuard,
    CancelChild,
    Command,
    Compute,
    Plan,
    ResumeFlow,
    RunStep,
    StartChild,
    WatchChild,
)
from orchestrator.domain.context import View
from orchestrator.domain.definition import Parallel, Primitive, Pure, Sequential
from orchestrator.domain.events import Event, Failure, Json
from orchestrator.domain.flow import FlowNode
from orchestrator.domain.guards import Budget, Cache, CircuitBreaker, RateLimit
from orchestrator.domain.ids import child_id
from orchestrator.domain.node_state import BLANK, Asked, NodeState, Settled, split_list
from orchestrator.domain.planning import (
    CUT_OFF,
    NOT_BEGUN,
    Around,
    Broken,
    Done,
    Place,
    Progress,
    earliest,
    grouped,
    matches,
    merged,
    timed_out,
)
from orchestrator.domain.policies import UndoPolicy, seconds
from orchestrator.domain.saga import Child
from orchestrator.domain.steps import Step
from orchestrator.domain.waiting import Sleep, Wait
from orchestrator.domain.wrappers import (
    Keep,
    Pivot,
    Retry,
    Scope,
    Timeout,
    Using,
    below_adapters,
    is_composite,
)

REQUEST_LIMIT = 1_000
"""Requests of one flow: its code is run again from the beginning whenever it is loaded."""

_NO_WAY_BACK = UndoPolicy()
"""How a step is retried that has no policy of its own, after the pivot."""


@dataclass(frozen=True, slots=True)
class Forward(Backward):
    """How far an instance has come, and what is to be recorded or run next."""

    def progress(self, place: Place) -> Progress:
        """How far the flow has come below *place*."""
        known = place.state
        if known.done is not None:
            return Done(known.done)
        rule = RULES.get(type(place.node))
        if rule is None:
            raise TypeError(f"{place.node!r} has no rule")
        progress = rule(self, place)
        if isinstance(progress, Done) and not isinstance(place.node, Step) and known is not BLANK:
            known.done = progress.output
        return progress

    # ------------------------------------------------------------------ leaves

    def step(self, place: Place) -> Progress:
        step, known, around = place.node, place.state, place.around
        assert isinstance(step, Step)  # noqa: S101 - the table of rules says so
        if known.settled is Settled.SUCCEEDED:
            return Done(known.output or Json("null"))
        if known.settled is not None:
            return self._step_failed(place, step)
        if known.asked is not None and known.asked.intent == "do":
            return self._asked(place, step, known.asked)
        held = known.held_until is not None
        if around.halted is not None and (held or place.path not in around.halted):
            return self._not_begun(place, step)
        for due in (known.due_at, known.held_until):
            if due is not None and self.now < due:
                return Plan(wake_at=due)
        attempt = known.attempts + 1
        spared = place.path in around.spared and not held
        if around.broke is not None and around.halted is None and not spared:
            return Plan((ev.StepFailed(place.path, step.name, attempt, around.broke),))
        announced = known.announced >= attempt
        if step.once and not announced and around.halted is None:
            return Plan((ev.StepStarted(place.path, step.name, attempt),))
        run = RunStep(
            place.path,
            step,
            attempt,
            known.edited_input or place.input,
            self.state.outputs,
            place.timeout,
            around.deadline,
            announced,
            around.guards,
            around.cut,
            known.held_until,
            number=known.sent + 1,
        )
        return Plan(commands=(run,))

    def _asked(self, place: Place, step: Step[Any, Any], asked: Asked) -> Progress:
        """Its command was sent: it settles by the reply, or is in doubt when none comes in time."""
        known, path = place.state, place.path
        if known.replied is not None:
            given = known.edited_input or place.input
            run = RunStep(
                path, step, asked.attempt, given, self.state.outputs, announced=True,
                reply=known.replied,
            )  # fmt: skip
            return Plan(commands=(run,))
        if place.around.cut:
            return Plan((ev.StepInDoubt(path, step.name, asked.attempt, CUT_OFF),))
        if (late := self.no_reply(asked)) is not None:
            return Plan((ev.StepInDoubt(path, step.name, asked.attempt, late),))
        return Plan(wake_at=asked.due_at)

    def _not_begun(self, place: Place, step: Step[Any, Any]) -> Progress:
        """It does not run any more; an earlier attempt of a pivot may be in doubt all the same."""
        if not (place.pivot and place.state.doubtful):
            return NOT_BEGUN
        asked = self.probe(place.path, step, place.state, lambda: place.input)
        return asked or Plan((unsettled(place.path, step, place.state),))

    def _step_failed(self, place: Place, step: Step[Any, Any]) -> Progress:
        known, around = place.state, place.around
        broken = Broken(known.failure or NOT_BEGUN.failure, place.path)
        if place.retrying:
            return broken
        stopped = around.halted is not None or around.broke is not None
        alone = self.state.pivoted and not around.retried and not stopped
        if alone and (again := self._retry_for_long(place, broken.failure)) is not None:
            return Plan((again,))
        if around.halted is None or place.pivot:
            asked = self.probe(place.path, step, known, lambda: place.input)
            if asked is not None:
                return asked
        if place.pivot and known.doubtful:
            return Plan((unsettled(place.path, step, known),))
        return broken

    def _retry_for_long(self, place: Place, failure: Failure) -> Event | None:
        """After the pivot there is no way back: try on, as a compensation would be."""
        known = place.state
        since = known.since or self.now
        if failure.permanent or self.now - since >= _NO_WAY_BACK.give_up_after:
            return None
        retries = known.retries + 1
        delay = _NO_WAY_BACK.backoff.delay(retries, f"{self.state.saga_id}/{place.path}")
        delay = max(delay, timedelta(seconds=failure.retry_after or 0))
        return ev.RetryScheduled(
            place.path, place.path, known.attempts + 1, self.now + delay, since
        )

    def pure(self, place: Place) -> Progress:
        node = place.node
        assert isinstance(node, Pure)  # noqa: S101 - the table of rules says so
        return self._computed(
            place, node.name, lambda v, _: node.fn(v), node.takes, node.gives, rides_along=True
        )

    def _computed(
        self,
        place: Place,
        name: str,
        call: Callable[[Any, Any], Any],
        takes: Any,
        gives: Any,
        *,
        detail: Any = None,
        rides_along: bool = False,
    ) -> Progress:
        known = place.state
        if known.settled is Settled.SUCCEEDED:
            return Done(known.output or Json("null"))
        if known.settled is not None:
            return Broken(known.failure or NOT_BEGUN.failure, place.path)
        if place.around.halted is not None:
            return NOT_BEGUN
        compute = Compute(
            place.path, place.node, name, call, place.input, takes, gives,
            self.state.outputs, detail, rides_along,
        )  # fmt: skip
        return Plan(commands=(compute,))

    def nothing(self, place: Place) -> Progress:
        return Done(place.input)

    def sleep(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Sleep)  # noqa: S101 - the table of rules says so
        if known.settled is Settled.SUCCEEDED:
            return Done(place.input)
        if place.around.halted is not None:
            return NOT_BEGUN
        if known.due_at is None:
            return Plan((ev.TimerSet(place.path, self.now + node.duration),))
        if self.now < known.due_at:
            return Plan(wake_at=known.due_at)
        return Plan((ev.TimerFired(place.path),))

    def wait(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Wait)  # noqa: S101 - the table of rules says so
        name = node.signal.name
        if known.settled is Settled.SUCCEEDED:
            return Done(known.output or Json("null"))
        if known.settled is not None:
            failure = known.failure or NOT_BEGUN.failure
            return Broken(failure, place.path, failure == NOT_BEGUN.failure)
        if place.around.halted is not None:
            gone = (ev.WaitEnded(place.path, name, NOT_BEGUN.failure),)
            return Plan(gone) if known.waiting else NOT_BEGUN
        if not known.waiting:
            due = None if node.within is None else self.now + node.within
            return Plan((ev.WaitStarted(place.path, name, due),))
        if known.due_at is not None and self.now >= known.due_at:
            within = node.within.total_seconds() if node.within else 0
            late = timed_out(f"no signal {name!r} within {within:g} s")
            return Plan((ev.WaitEnded(place.path, name, late),))
        return Plan(wake_at=known.due_at)

    # ------------------------------------------------------------------ composition

    def sequential(self, place: Place) -> Progress:
        known, parts = place.state, place.node.children
        text = known.passed_on[-1] if known.passed_on else place.input
        for index in range(len(known.passed_on), len(parts)):
            progress = self.progress(place.below(parts[index], str(index), text))
            if not isinstance(progress, Done):
                return progress
            text = progress.output
            if known is not BLANK:
                # What is done stays done: a long sequence is not looked through each time.
                known.passed_on.append(text)
        return Done(text)

    def parallel(self, place: Place) -> Progress:
        """Branches settle before they fail: no undoing beside work still in flight."""
        node, known = place.node, place.state
        assert isinstance(node, Parallel)  # noqa: S101 - the table of rules says so
        around = place.halted_by(known.halted, cut=known.cut)
        parts = list(self._branches(place, node, around))
        pending = [part for part in parts if isinstance(part, Plan)]
        broken = [part for part in parts if isinstance(part, Broken)]
        if pending:
            plan = merged(pending)
            watched = node.limit is not None or node.on_failure == "cancel"
            if broken and watched and known.halted is None and place.around.halted is None:
                running = running_steps(plan)
                cut = node.on_failure == "cancel"
                return Plan((ev.BranchesHalted(place.path, running, cut),), plan.commands)
            return plan
        if len(broken) > 1:
            # All that failed would have to run again.
            return replace(grouped(broken), path=place.path)
        if broken:
            return broken[0]
        return Done(Json(f"[{','.join(part.output for part in parts if isinstance(part, Done))}]"))

    def _branches(
        self, place: Place, node: Parallel[Any, *tuple[Any, ...]], around: Around
    ) -> Iterator[Progress]:
        """Each branch's progress; no more than `limit` of them are pending at once."""
        free = node.limit or len(node.branches)
        failed = False
        for index, branch in enumerate(node.branches):
            part = self.progress(place.below(branch, str(index), place.input, around))
            if isinstance(part, Plan):
                if not free:
                    if failed or around.halted is not None:
                        yield NOT_BEGUN
                    return
                free -= 1
            failed = failed or isinstance(part, Broken)
            yield part

    def fallback(self, place: Place) -> Progress:
        known = place.state
        around = replace(place.around, retried=True)
        segment = scope_segment(known, known.taken)
        below = place.below(place.node.children[known.taken], segment, place.input, around)
        progress = self._leaving_nothing(below)
        if not isinstance(progress, Broken):
            return progress
        failures = [Broken(failure) for failure in known.failures]
        if place.around.halted is not None or known.taken + 1 >= len(place.node.children):
            everything = grouped([*failures, progress], all_permanent=True)
            return Broken(everything.failure, place.path, progress.not_begun and not failures)
        return Plan((ev.FallbackTaken(place.path, known.taken + 1, progress.failure),))

    def router(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Router)  # noqa: S101 - the table of rules says so
        if not known.route:
            return self._computed(place, "router", node.choose, node.input_type, str)
        if known.route not in node.routes:
            why = f"the recorded route {known.route!r} is not there any more"
            return Broken(Failure("RouteUnknown", why, permanent=True), place.path)
        index = node.names.index(known.route)
        return self.progress(place.below(node.routes[known.route], str(index), place.input))

    def each(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Each)  # noqa: S101 - the table of rules says so
        fan_out = known.fan_out
        if fan_out is None:
            return self._begin_each(place, node)
        around = place.halted_by(known.halted)
        plans: list[Plan] = []
        fates: list[Event] = []
        for item in fan_out.live:
            part = self.progress(place.below(node.inner, str(item), fan_out.items[item], around))
            if isinstance(part, Plan):
                plans.append(part)
            elif isinstance(part, Done):
                fates.append(ev.ItemSucceeded(place.path, item, part.output))
            else:
                fates.append(ev.ItemFailed(place.path, item, part.failure))
        if plans:
            plan = merged(plans)
            failed = fan_out.failures or any(isinstance(fate, ev.ItemFailed) for fate in fates)
            if failed and around.halted is None:
                # The others are asked again what they want when they know.
                fates.append(ev.BranchesHalted(place.path, running_steps(plan)))
                return Plan(tuple(fates), plan.commands)
            return replace(plan, decisions=(*fates, *plan.decisions))
        if fates:
            return Plan(tuple(fates))
        if fan_out.failures:
            broken = [
                Broken(failure, not_begun=failure == NOT_BEGUN.failure)
                for failure in fan_out.failures.values()
            ]
            return replace(grouped(broken), path=place.path)
        return Done(Json(f"[{','.join(output or 'null' for output in fan_out.outputs)}]"))

    def _begin_each(self, place: Place, node: Each) -> Progress:
        if place.state.settled is not None:
            return Broken(place.state.failure or NOT_BEGUN.failure, place.path)
        if place.around.halted is not None:
            return NOT_BEGUN
        try:
            count = len(split_list(place.input))
        except ValueError:
            why = Failure("TypeError", "each() takes a list", permanent=True)
            return Plan((ev.ComputationFailed(place.path, "each", why),))
        if count > node.limit:
            text = f"{count:,} items are more than the limit of {node.limit:,}; nothing was begun"
            why = Failure("FanOutLimitExceeded", text, permanent=True)
            return Plan((ev.ComputationFailed(place.path, "each", why),))
        return Plan((ev.EachStarted(place.path, place.input, count, node.concurrency),))

    def loop(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Loop)  # noqa: S101 - the table of rules says so
        iteration = max(known.iteration, 1)
        if known.settled is Settled.FAILED:
            return Broken(known.failure or NOT_BEGUN.failure, place.path)
        if known.holds is None and known.due_at is not None and self.now < known.due_at:
            return NOT_BEGUN if place.around.halted is not None else Plan(wake_at=known.due_at)
        text = self.input_of_iteration(place, iteration)
        body = self.progress(place.below(node.inner, iteration_segment(iteration), text))
        if not isinstance(body, Done) or known.holds:
            return body
        if known.holds is None:
            inside = replace(place, input=body.output)
            return self._computed(
                inside, "until", lambda v, _: bool(node.until(v)), node.inner.output_type, bool,
                detail=iteration,
            )  # fmt: skip
        if place.around.halted is not None:
            return NOT_BEGUN
        if iteration - known.forgiven >= node.max_iterations:
            why = f"the condition does not hold after {node.max_iterations} iterations"
            return Broken(Failure("LoopExhausted", why), place.path)
        due = self.now + seconds(node.pause)
        return Plan((ev.IterationScheduled(place.path, iteration + 1, due, body.output),))

    # ------------------------------------------------------------------ wrappers

    def retry(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Retry)  # noqa: S101 - the table of rules says so
        scope = is_composite(node.inner)
        halted = place.around.halted is not None
        if known.due_at is not None and self.now < known.due_at and not halted:
            return Plan(wake_at=known.due_at)
        around = replace(place.around, retried=True)
        segment = scope_segment(known, 0) if scope else "0"
        left = known.retries < node.max_retries
        inside = place.inside(around=around, segment=segment)
        # Whether to ask a probe is only a question once this has no retry left.
        below = replace(inside, retrying=left or place.retrying)
        progress = self._leaving_nothing(below) if scope else self.progress(below)
        if not isinstance(progress, Broken):
            return progress
        failure = progress.failure
        if left and not halted and not failure.permanent and matches(failure, node.on):
            if around.broke is not None:
                return Broken(around.broke, place.path)
            return Plan((self._retry_event(place, node, failure, scope=scope),))
        if not scope:
            progress = self.progress(replace(inside, retrying=place.retrying))
        else:
            progress = replace(progress, path=place.path)
        return progress

    def _retry_event(
        self, place: Place, retry: Retry[Any, Any], failure: Failure, *, scope: bool
    ) -> Event:
        known = place.state
        retries = known.retries + 1
        delay = retry.backoff.delay(retries, f"{self.state.saga_id}/{place.path}")
        if failure.retry_after is not None:
            delay = max(delay, timedelta(seconds=failure.retry_after))
        target = f"{place.path}/0@{known.runs + 2}" if scope else f"{place.path}/0"
        return ev.RetryScheduled(place.path, target, retries + 1, self.now + delay)

    def timeout(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Timeout)  # noqa: S101 - the table of rules says so
        after = seconds(node.after)
        if _bounds_one_attempt(node):
            limit = after if place.timeout is None else min(after, place.timeout)
            return self.progress(replace(place.inside(), timeout=limit))
        around = place.halted_by(known.halted)
        around = replace(around, deadline=earliest(known.deadline, around.deadline))
        below = place.inside(around=around)
        progress = self.progress(below)
        if isinstance(progress, Plan) and not below.state.unwinding:
            return self._watched(place, progress, after)
        if is_composite(node.inner):
            progress = self._leaving_nothing(below, progress)
        if isinstance(progress, Broken) and known.halted is not None:
            return Broken(timed_out(f"not done within {after.total_seconds():g} s"), place.path)
        return progress

    def _watched(self, place: Place, progress: Plan, after: timedelta) -> Plan:
        """*progress* below a durable time-out: begin it, end it, or wake up for it."""
        known, commands = place.state, progress.commands
        if known.halted is not None:
            return progress
        if known.deadline is None:
            begun = commands or any(isinstance(e, _BEGINNINGS) for e in progress.decisions)
            if not begun:
                return progress
            set_ = ev.DeadlineSet(place.path, self.now + after)
            return Plan((*progress.decisions, set_), commands)
        if progress.decisions:
            return progress
        if self.now >= known.deadline:
            return Plan((ev.DeadlinePassed(place.path, running_steps(progress)),), commands)
        return Plan((), commands, earliest(progress.wake_at, known.deadline))

    def scope(self, place: Place) -> Progress:
        return self._leaving_nothing(place.below(place.node.children[0], "0", place.input))

    def _leaving_nothing(self, below: Place, progress: Progress | None = None) -> Progress:
        """The progress of a scope: when it failed, all of it is undone before the error goes on."""
        if progress is None:
            progress = self.progress(below)
        if self.state.pivoted:
            return progress
        if below.state.unwinding and not isinstance(progress, Broken):
            # It turned out meanwhile that what had failed did happen; what was undone is gone.
            progress = Broken(Failure("Undone", "a part of it was undone already"), below.path)
        if isinstance(progress, Broken):
            return self.unwind(below.state, below.path) or progress
        return progress

    def pivot(self, place: Place) -> Progress:
        below = replace(place.inside(), pivot=True)
        progress = self.progress(below)
        if isinstance(progress, Done) and not self.state.pivoted:
            return Plan((ev.PivotPassed(place.path),))
        return progress

    def keep(self, place: Place) -> Progress:
        progress = self.progress(place.inside())
        if isinstance(progress, Done):
            return Done(Json(f"[{place.input},{progress.output}]"))
        return progress

    def using(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Using)  # noqa: S101 - the table of rules says so
        if known.bound is None:
            return self._computed(
                place, node.name, lambda v, ctx: node.bind(View(v, ctx)), Any,
                node.inner.input_type, rides_along=True,
            )  # fmt: skip
        return self.progress(place.inside(input=known.bound))

    # ------------------------------------------------------------------ guards

    def guarded(self, place: Place) -> Progress:
        """Circuits, rates and caches are asked where the step is called."""
        node, around = place.node, place.around
        match node:
            case CircuitBreaker() | RateLimit():
                around = replace(around, guards=(*around.guards, node.rule))
            case Cache():
                guard = CacheGuard(node.rule(below_adapters(node).identity), node)
                around = replace(around, guards=(*around.guards, guard))
            case _:
                raise TypeError(f"{node!r} is no guard")
        return self.progress(place.inside(around=around))

    def budget(self, place: Place) -> Progress:
        node, around = place.node, place.around
        assert isinstance(node, Budget)  # noqa: S101 - the table of rules says so
        if node.rule is not None:
            around = replace(around, guards=(*around.guards, node.rule))
        elif place.state.cost >= node.limit and around.broke is None:
            return self._spent(place, node)
        return self.progress(place.inside(around=around))

    def _spent(self, place: Place, node: Budget[Any, Any]) -> Progress:
        """The budget is used up: what runs settles, and no further step begins."""
        spent, spared = place.state.cost, place.state.halted
        if spared is None:
            progress = self.progress(place.inside())
            if isinstance(progress, Plan) and (running := running_steps(progress)):
                return Plan((ev.BranchesHalted(place.path, running),), progress.commands)
        text = f"{spent:g} of {node.limit:g} are spent; nothing more is begun"
        why = Failure("BudgetExceeded", text, permanent=True)
        around = replace(place.around, broke=why, spared=spared or frozenset())
        return self.progress(place.inside(around=around))

    # ------------------------------------------------------------------ children and flows

    def child(self, place: Place) -> Progress:
        node, known = place.node, place.state
        assert isinstance(node, Child)  # noqa: S101 - the table of rules says so
        fellow, halted = known.fellow, place.around.halted is not None
        if known.settled is Settled.SUCCEEDED:
            return Done(known.output or Json("null"))
        if known.settled is not None:
            return Broken(known.failure or NOT_BEGUN.failure, place.path)
        if fellow is None:
            return NOT_BEGUN if halted else self._request_child(place, node)
        path, id_ = place.path, fellow.child_id
        if not fellow.started:
            # Also when it is not wanted any more: an earlier owner may have started it just now.
            return Plan(commands=(StartChild(path, node.saga, id_, fellow.key, fellow.input),))
        if halted and not fellow.cancelled:
            return Plan(commands=(CancelChild(path, id_),))
        return Plan(commands=(WatchChild(path, node.saga.name, id_),))

    def _request_child(self, place: Place, node: Child[Any, Any]) -> Progress:
        saga, key = node.saga, node.key
        unique = f"{self.state.saga_id}/{place.path}/{place.state.runs}"
        id_ = child_id(unique, self.now)
        if key is None:
            asked = ev.ChildRequested(place.path, saga.name, saga.version, id_, place.input)
            return Plan((asked,))
        return self._computed(
            place, "key", lambda v, _: str(key(v)), saga.input_type, str, detail=id_
        )

    def flow(self, place: Place) -> Progress:
        known = place.state
        if known.settled is Settled.SUCCEEDED:
            return Done(known.output or Json("null"))
        if known.settled is not None:
            return Broken(known.failure or NOT_BEGUN.failure, place.path)
        nodes, asked = self.flows.get(place.path, ()), len(known.calls)
        if asked > len(nodes):
            return Plan(commands=(self.resume_flow(place),))
        if asked:
            last = self._answer(place, asked - 1)
            if isinstance(last, Plan):
                return last
        if place.around.halted is not None:
            return NOT_BEGUN
        if asked >= REQUEST_LIMIT:
            text = f"a flow makes at most {REQUEST_LIMIT:,} requests; use loop(), each() or a child"
            why = Failure("RequestLimitExceeded", text, permanent=True)
            return Plan((ev.FlowFailed(place.path, why),))
        return Plan(commands=(self.resume_flow(place),))

    def _answer(self, place: Place, index: int) -> Progress:
        """What became of a request. One that failed leaves nothing behind."""
        node = self.flows[place.path][index]
        around = replace(place.around, retried=True)
        below = place.below(node, str(index), place.state.calls[index].input, around)
        return self._leaving_nothing(below)

    def resume_flow(self, place: Place) -> Command:
        """Run the code of a flow on the answers that it has; it may have to be loaded first."""
        node, known = place.node, place.state
        assert isinstance(node, FlowNode)  # noqa: S101 - only flows have code
        answers: list[Json | Failure] = []
        for index in range(min(len(known.calls), len(self.flows.get(place.path, ())))):
            answer = self._answer(place, index)
            if isinstance(answer, Plan):
                break
            answers.append(answer.output if isinstance(answer, Done) else answer.failure)
        requests = tuple((call.request, call.input) for call in known.calls)
        return ResumeFlow(place.path, node, place.input, requests, tuple(answers))


_BEGINNINGS = (
    ev.TimerSet, ev.WaitStarted, ev.ChildRequested, ev.StepStarted, ev.RemoteRequested,
)  # fmt: skip

Rule = Callable[[Forward, Place], Progress]

RULES: Mapping[type[Primitive[Any, Any]], Rule] = {
    Step: Forward.step,
    Pure: Forward.pure,
    Nothing: Forward.nothing,
    Sleep: Forward.sleep,
    Wait: Forward.wait,
    Sequential: Forward.sequential,
    Parallel: Forward.parallel,
    Fallback: Forward.fallback,
    Router: Forward.router,
    Each: Forward.each,
    Loop: Forward.loop,
    Retry: Forward.retry,
    Timeout: Forward.timeout,
    Scope: Forward.scope,
    Pivot: Forward.pivot,
    Keep: Forward.keep,
    Using: Forward.using,
    CircuitBreaker: Forward.guarded,
    RateLimit: Forward.guarded,
    Cache: Forward.guarded,
    Budget: Forward.budget,
    Child: Forward.child,
    FlowNode: Forward.flow,
}
"""One rule for each primitive. A new one is a node, its events, and a line here."""


def scope_segment(known: NodeState, index: int) -> str:
    """The path segment of a part that begins afresh whenever its scope runs again."""
    return f"{index}@{known.runs + 1}" if known.runs else str(index)


def running_steps(plan: Plan) -> tuple[str, ...]:
    """The steps that a plan wants to run, and that may therefore be under way."""
    return tuple(command.path for command in plan.commands if isinstance(command, RunStep))


def _bounds_one_attempt(timeout: Timeout[Any, Any]) -> bool:
    inner: Primitive[Any, Any] = timeout
    while inner.transparent and not isinstance(inner, Retry):
        inner = inner.children[0]
    return isinstance(inner, Step | Pure)
