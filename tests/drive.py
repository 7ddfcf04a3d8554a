"""One instance carried by hand: the pure core, virtual time, scripted answers, no event loop.

`Drive` does what the engine does and nothing else: it records decisions, begins commands, records
the outcome that comes first, hears messages, and dies without warning when it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.adapters.codec import JsonCodec
from orchestrator.domain import events as ev
from orchestrator.domain.commands import (
    CancelChild,
    ChildOver,
    Command,
    Compute,
    Failed,
    InDoubt,
    Outcome,
    Plan,
    Postponed,
    Requested,
    ResumeFlow,
    RunCompensation,
    RunProbe,
    RunStep,
    StartChild,
    Succeeded,
    UndoChild,
    WatchChild,
)
from orchestrator.domain.context import Surroundings, WorkflowContext
from orchestrator.domain.decider import decide, frontier, plan
from orchestrator.domain.events import ENDED, RIDES_ALONG, Event, Failure, Json, Status
from orchestrator.domain.evolve import evolve, fold
from orchestrator.domain.messages import hear, hear_reply
from orchestrator.domain.outcomes import failure_of
from orchestrator.domain.saga import Saga
from orchestrator.domain.state import SagaState
from orchestrator.errors import InvalidInputError
from orchestrator.runtime.flows import LiveFlow

START = datetime(2024, 1, 1, tzinfo=UTC)
SAGA_ID = "0190-test"
BOUND = 20_000
CODEC = JsonCodec()
NOW = timedelta(0)

Answer = tuple[Outcome, timedelta]
"""What a call comes to, and how long it takes."""

Play = Callable[[Command], Answer]

UNKNOWN = Failure("TimeoutError", "no answer", ("builtins.TimeoutError", "builtins.Exception"))
GONE_BACK = ChildOver(Status.COMPENSATED, None, Failure("ChildFailed", "it went back"))

_TELL_RUNNING = (ev.DeadlinePassed, ev.BranchesHalted, ev.HistoryLimitReached)


def begin(saga: Saga[Any, Any], input: str = "0") -> ev.SagaStarted:
    """The first event of an instance of *saga*."""
    due = None if saga.deadline is None else START + _delta(saga.deadline)
    return ev.SagaStarted(
        saga.name, saga.version, saga.fingerprint, START, Json(input), deadline=due
    )


def _delta(value: timedelta | float) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=value)


@dataclass(slots=True)
class Call:
    """Something under way, and what will come of it."""

    command: Command
    outcome: Outcome
    began_at: datetime
    ends_at: datetime
    number: int


@dataclass(slots=True)
class Kid:
    """A child saga, of which only the end matters."""

    over: ChildOver
    ends_at: datetime
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that will arrive."""

    at: datetime
    kind: str
    payload: Mapping[str, Any]
    actor: str = "ann"


@dataclass(slots=True)
class Drive:
    """One instance. All that is planned runs side by side.

    Calls that take longer than `announce_after` are recorded as begun, as a worker does it.
    """

    saga: Saga[Any, Any]
    play: Play
    input: str = "0"
    now: datetime = START
    history: list[Event] = field(default_factory=list)
    state: SagaState = field(default_factory=lambda: SagaState(SAGA_ID))
    calls: dict[tuple[type[Command], str], Call] = field(default_factory=dict)
    begun: list[Command] = field(default_factory=list)
    kids: dict[str, Kid] = field(default_factory=dict)
    flows: dict[str, LiveFlow] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    letters: list[Letter] = field(default_factory=list)
    announce_after: timedelta | None = None
    seq: int = 0

    def __post_init__(self) -> None:
        if not self.history:
            self.note(begin(self.saga, self.input))

    @property
    def over(self) -> bool:
        return self.state.status in ENDED or self.state.status is Status.STUCK

    @property
    def under_way(self) -> tuple[str, ...]:
        """The steps that run, or may still run where an earlier owner left them."""
        running = {path for kind, path in self.calls if kind is RunStep}
        return tuple(sorted(running | self.suspects))

    @property
    def nodes(self) -> dict[str, list[Any]]:
        """What the code of each flow has asked for so far."""
        return {path: flow.nodes for path, flow in self.flows.items()}

    def note(self, event: Event) -> None:
        evolve(self.state, event)
        self.history.append(event)

    # ------------------------------------------------------------------ the loop

    def run(self) -> Drive:
        """Until it has ended or is stuck. AssertionError when it never does."""
        return self.run_until(lambda: False)

    def run_until(self, holds: Callable[[], bool]) -> Drive:
        """Until *holds*, or until it has ended or is stuck."""
        for _ in range(BOUND):
            if self.over or holds():
                return self
            self.turn()
        raise AssertionError(f"no end after {BOUND} turns: {self.history[-5:]}")

    def turn(self) -> None:
        """Let one thing happen: a message, all decisions, or the next outcome or wake-up."""
        self._read_letters()
        if self.over:
            self.calls.clear()
            return
        next_ = self._begin_all()
        if next_ is not None:
            self._pass_time(next_.wake_at)

    def work(self) -> None:
        """Record what is decided and begin what is planned, but let no time pass."""
        while not self.over and self._begin_all() is None:
            pass

    def plan(self) -> Plan:
        """The plan as of now; the code of flows is run as far as it goes."""
        for _ in range(BOUND):
            next_ = plan(self.saga, self.state, self.now, self.nodes)
            code = [c for c in next_.commands if isinstance(c, ResumeFlow)]
            if not code:
                return next_
            for command in code:
                self._resume(command)
        raise AssertionError(f"code is run again and again: {self.history[-5:]}")

    def _begin_all(self) -> Plan | None:
        """None when something was recorded, so that the plan is another one now."""
        before = self.state.version
        next_ = self.plan()
        for event in next_.decisions:
            self.note(self._as_recorded(event))
        if self.state.version != before:
            return None
        wanted = {(type(command), command.path) for command in next_.commands}
        for place in [place for place in self.calls if place not in wanted]:
            # Only what has no effect may be lost sight of.
            assert place[0] in (WatchChild, RunProbe), f"{place} runs, and nobody waits for it"
            if place[0] is WatchChild:
                del self.calls[place]
        for command in next_.commands:
            self._begin(command)
        return None if self.state.version != before else next_

    def _resume(self, command: ResumeFlow) -> None:
        outcome = self.flows.setdefault(command.path, LiveFlow(CODEC)).resume(command)
        if outcome is not None:
            self.note(decide(command, outcome))

    def _as_recorded(self, event: Event) -> Event:
        """What turns round leaves in doubt what may have begun."""
        if not isinstance(event, _TELL_RUNNING):
            return event
        return replace(event, running=tuple(p for p in event.running if p in self.under_way))

    # ------------------------------------------------------------------ messages

    def send(self, kind: str, *, after: float = 0, **payload: Any) -> None:
        """Have a message arrive, so many seconds from now."""
        letter = Letter(self.now + timedelta(seconds=after), kind, payload)
        self.letters = sorted([*self.letters, letter], key=lambda each: each.at)

    def cancel(self, reason: str = "changed my mind") -> None:
        self.hear(Letter(self.now, "cancel", {"reason": reason}))

    def repair(self, kind: str, **payload: Any) -> None:
        """What an operator does to an instance that is stuck."""
        self.hear(Letter(self.now, kind, payload))

    def hear(self, letter: Letter) -> None:
        """Record a message as its owner does."""
        self.seq += 1
        if letter.kind == "reply":
            reply = hear_reply(self.state, letter.payload, actor=letter.actor, seq=self.seq)
            if reply is not None:
                self.note(reply)
            return
        stuck = self.state.status is Status.STUCK
        self.note(
            hear(
                self.saga, self.state, letter.kind, letter.payload, actor=letter.actor,
                seq=self.seq, running=self.under_way, check=_problem,
            )
        )  # fmt: skip
        if stuck and self.state.status is not Status.STUCK:
            self._suspect()

    def _read_letters(self) -> None:
        while self.letters and self.letters[0].at <= self.now:
            letter = self.letters.pop(0)
            if self.state.status not in ENDED or letter.kind == "undo":
                self.hear(letter)

    # ------------------------------------------------------------------ crashes

    def crash(self) -> None:
        """Lose all memory, and the trailing facts that had not asked for an append of their own.

        What comes after runs again from the log, as a new owner would: what the frontier holds
        may be under way.
        """
        while len(self.history) > 1 and isinstance(self.history[-1], RIDES_ALONG):
            self.history.pop()
        self.restart(self.history)

    def restart(self, history: list[Event]) -> None:
        """Go on from *history*, as a new owner."""
        self.history, self.state = history, fold(SAGA_ID, history)
        self.calls, self.flows, self.suspects = {}, {}, set()
        self._suspect()

    def _suspect(self) -> None:
        """Find what an earlier owner may have begun, beyond what it had in memory only."""
        self.calls.clear()
        for _ in range(BOUND):
            begun = frontier(self.saga, self.state, self.now, self.nodes)
            decided = [event for event in begun.decisions if isinstance(event, RIDES_ALONG)]
            for event in decided:
                self.note(event)
            if decided:
                continue
            before = self._known()
            for command in begun.commands:
                if isinstance(command, ResumeFlow):
                    self._resume(command)
                elif isinstance(command, Compute) and command.rides_along:
                    self.note(decide(command, self.play(command)[0]))
            if before == self._known():
                self.suspects = {
                    c.path
                    for c in begun.commands
                    if isinstance(c, RunStep) and c.step.remote is None
                }
                return
        raise AssertionError(f"suspicion has no end: {self.history[-5:]}")

    def _known(self) -> tuple[int, int]:
        return self.state.version, sum(map(len, self.nodes.values()))

    # ------------------------------------------------------------------ calls

    def _begin(self, command: Command) -> None:
        place = (type(command), command.path)
        if isinstance(command, RunStep) and command.cut:
            # Nobody waits for it any more.
            self._call(command, InDoubt(UNKNOWN), self.now)
        if place in self.calls:
            return
        self.begun.append(command)
        match command:
            case Compute():
                self.note(decide(command, self.play(command)[0]))
                return
            case WatchChild():
                kid = self.kids[command.child_id]
                self._call(command, kid.over, max(kid.ends_at, self.now))
                return
            case StartChild() | CancelChild() | UndoChild():
                self._call(command, self._speak(command), self.now)
                return
        if isinstance(command, RunStep) and command.step.once and command.path in self.suspects:
            self._call(command, InDoubt(UNKNOWN), self.now)
            return
        outcome, takes = self.play(command)
        if isinstance(outcome, Postponed | Requested) or getattr(command, "reply", None):
            self._call(command, outcome, self.now)
            return
        ends_at = self.now + takes
        if isinstance(command, RunStep):
            limits = [command.deadline] if command.deadline else []
            limits += [self.now + command.timeout] if command.timeout else []
            if limits and (min(limits) <= self.now or min(limits) < ends_at):
                ends_at, outcome = max(min(limits), self.now), InDoubt(UNKNOWN)
        self._call(command, outcome, ends_at)

    def _call(self, command: Command, outcome: Outcome, ends_at: datetime) -> None:
        place = (type(command), command.path)
        if (
            isinstance(command, RunStep)
            and command.step.transaction
            and isinstance(outcome, InDoubt)
        ):
            # What was not committed has not happened.
            outcome = Failed(outcome.failure)
        self.calls[place] = Call(command, outcome, self.now, ends_at, len(self.begun))

    def _speak(self, command: StartChild | CancelChild | UndoChild) -> Outcome:
        """What a child makes of it. The same message again changes nothing."""
        outcome, takes = self.play(command)
        kid = self.kids.get(command.child_id)
        match command:
            case StartChild() if kid is None:
                if not isinstance(outcome, ChildOver):
                    return outcome
                self.kids[command.child_id] = Kid(outcome, self.now + takes)
            case CancelChild() if kid is not None and kid.ends_at > self.now:
                self.kids[command.child_id] = Kid(GONE_BACK, self.now + takes)
            case UndoChild() if kid is not None and not kid.undone:
                over = outcome if isinstance(outcome, ChildOver) else GONE_BACK
                self.kids[command.child_id] = Kid(over, self.now + takes, undone=True)
        return Succeeded()

    def _pass_time(self, wake_at: datetime | None) -> None:
        """On to what comes first. An outcome wins a tie: it had arrived by then."""
        first = min(self.calls.values(), key=lambda c: (c.ends_at, c.number), default=None)
        times = [t for t in (wake_at, *(letter.at for letter in self.letters[:1])) if t is not None]
        if first is None and not times:
            raise AssertionError(f"it waits for nothing: {self.history[-3:]}")
        if first is None or (times and min(times) < first.ends_at):
            self.now = max(self.now, min(times))
            return
        self.now = max(self.now, first.ends_at)
        command = first.command
        del self.calls[type(command), command.path]
        self.suspects.discard(command.path)
        if self._is_overdue(first):
            self.note(ev.StepStarted(command.path, command.step.name, command.attempt))  # type: ignore[union-attr]  # only steps are announced
        self.note(decide(command, first.outcome))

    def _is_overdue(self, call: Call) -> bool:
        command = call.command
        if self.announce_after is None or not isinstance(command, RunStep) or command.announced:
            return False
        return call.ends_at - call.began_at > self.announce_after


def _problem(text: Json, annotation: Any) -> str | None:
    try:
        CODEC.decode(text, annotation)
    except InvalidInputError as error:
        return str(error)
    return None


def computed(command: Compute) -> Outcome:
    """What the function of *command* really gives."""

    def output(step: Any) -> Any:
        if step.name not in command.outputs:
            raise LookupError(f"step {step.name!r} has no recorded output in this saga yet")
        return CODEC.decode(command.outputs[step.name], step.output_type)

    ctx = WorkflowContext(surroundings=Surroundings(read_output=output))
    try:
        value = CODEC.decode(command.input, command.takes)
        return Succeeded(CODEC.encode(command.call(value, ctx), command.gives))
    except Exception as error:  # noqa: BLE001 - what a user's function raises is an outcome
        return Failed(failure_of(error))


def name_of(command: Command) -> str:
    """The name of the step, function, saga or flow that a command is about."""
    match command:
        case Compute() | WatchChild():
            return command.name
        case StartChild(saga=saga):
            return saga.name
        case RunStep(step=step) | RunCompensation(step=step) | RunProbe(step=step):
            return step.name
        case _:
            return command.path
