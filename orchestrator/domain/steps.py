"""Steps: what has effects, and how it is taken back. Declared by decorators that carry functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Literal, Protocol, get_args, get_origin, overload

from orchestrator.domain.bounds import (
    checked_count,
    checked_duration,
    checked_errors,
    checked_name,
    checked_reason,
    shown,
)
from orchestrator.domain.context import WorkflowContext
from orchestrator.domain.definition import A, B, C, D, In, Out, Primitive, Seconds
from orchestrator.domain.policies import Backoff, UndoPolicy
from orchestrator.domain.signatures import (
    accepts,
    annotation_of,
    check_plain,
    counts_parameters,
    is_generator,
    may_fit,
    read_signature,
    spell,
)
from orchestrator.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Completed(Generic[A, B]):
    """What an undo receives: the recorded input and output of its step, and the step's key."""

    input: A
    output: B
    key: str


@dataclass(frozen=True, slots=True)
class Attempted(Generic[A, B]):
    """What an undo on doubt receives; `output` is None when it is not known."""

    input: A
    output: B | None
    key: str


@dataclass(frozen=True, slots=True)
class Happened(Generic[B]):
    """A probe's answer: the step did happen, and this is its output."""

    output: B


@dataclass(frozen=True, slots=True)
class NotHappened:
    """A probe's answer: the step did not happen, and will not any more."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A probe's answer: it cannot be told, now or ever."""


Action = Callable[[A, WorkflowContext], Awaitable[B]]


PlainAction = Callable[[A, WorkflowContext], B]


TransactionalAction = Callable[[A, WorkflowContext, D], Awaitable[B]]


ProbeAction = Callable[
    [Attempted[A, B], WorkflowContext], Awaitable[Happened[B] | NotHappened | Unknown]
]


UndoAction = Callable[[Completed[A, B], WorkflowContext], Awaitable[None]]


DoubtAction = Callable[[Attempted[A, B], WorkflowContext], Awaitable[None]]


TransactionalUndo = Callable[[Completed[A, B], WorkflowContext, D], Awaitable[None]]


TransactionalDoubt = Callable[[Attempted[A, B], WorkflowContext, D], Awaitable[None]]


class DeclaresUndo(Protocol[A, B]):
    """Takes what undoes a completed step, with our database or without."""

    @overload
    def __call__(self, fn: UndoAction[A, B], /) -> UndoAction[A, B]: ...
    @overload
    def __call__(self, fn: TransactionalUndo[A, B, D], /) -> TransactionalUndo[A, B, D]: ...
    def __call__(self, fn: Any, /) -> Any: ...


class DeclaresDoubt(Protocol[A, B]):
    """Takes what undoes a step in doubt, with our database or without."""

    @overload
    def __call__(self, fn: DoubtAction[A, B], /) -> DoubtAction[A, B]: ...
    @overload
    def __call__(self, fn: TransactionalDoubt[A, B, D], /) -> TransactionalDoubt[A, B, D]: ...
    def __call__(self, fn: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Remote:
    """A command that a participant elsewhere carries out: its name, and the topic that it goes to."""

    command: str
    topic: str


@dataclass(frozen=True, eq=False, repr=False)
class Undo:
    """How a step is taken back: the function, its own time-out and its own retries.

    With `remote` the function only makes the command's payload, which is a `takes`.
    """

    action: Callable[..., Any]
    timeout: timedelta | None = None
    policy: UndoPolicy = field(default_factory=UndoPolicy)
    transaction: Any = None
    remote: Remote | None = None
    takes: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class Probe:
    """How to find out whether a step happened; asked again, with waits, while it fails."""

    action: Callable[..., Awaitable[Any]]
    timeout: timedelta | None = None
    retries: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    remote: Remote | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Step(Primitive[In, Out]):
    """A named leaf with an action and perhaps a way to take it back.

    Made by `@step`, or by `remote(...)`. `@x.compensation` and `@x.compensation_on_doubt` complete
    it in place, once, until the first `Saga` that holds it is built.
    """

    name: str
    action: Callable[..., Any]
    takes: Any
    gives: Any
    retries: int = 0
    limit: timedelta | None = None
    unbounded: bool = False
    once: bool = False
    doubt_on: tuple[type[BaseException], ...] | None = None
    undo_completed: Undo | None = None
    undo_attempted: Undo | None = None
    asks: Probe | None = None
    transaction: Any = None
    executor: Literal["", "process"] = ""
    no_undo_reason: str | None = None
    heartbeat: timedelta | None = None
    sealed: bool = False
    remote: Remote | None = None

    marked = True

    @property
    def label(self) -> str:
        return self.name

    @property
    def notes(self) -> tuple[str, ...]:
        there = (
            (f"remote, {self.remote.topic if self.remote else ''}", self.remote is not None),
            ("transactional", self.transaction is not None),
            ("once", self.once),
            ("in a process of its own", self.executor == "process"),
            ("undo", self.undo_completed is not None),
            ("undo on doubt", self.undo_attempted is not None),
            ("probe", self.asks is not None),
            (f"no undo: {self.no_undo_reason}", self.no_undo_reason is not None),
        )
        return tuple(word for word, holds in there if holds)

    @property
    def identity(self) -> str:
        return self.name

    @property
    def input_type(self) -> Any:
        return self.takes

    @property
    def output_type(self) -> Any:
        return self.gives

    @overload
    def compensation(self, fn: UndoAction[In, Out], /) -> UndoAction[In, Out]: ...
    @overload
    def compensation(
        self, fn: TransactionalUndo[In, Out, D], /
    ) -> TransactionalUndo[In, Out, D]: ...
    @overload
    def compensation(
        self, fn: None = None, /, *, retries: int | None = None, timeout: Seconds | None = None
    ) -> DeclaresUndo[In, Out]: ...
    def compensation(
        self,
        fn: Callable[..., Awaitable[None]] | None = None,
        /,
        *,
        retries: int | None = None,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare what undoes this step once it has completed."""
        return self._declare("undo_completed", fn, retries, timeout)

    @overload
    def compensation_on_doubt(self, fn: DoubtAction[In, Out], /) -> DoubtAction[In, Out]: ...
    @overload
    def compensation_on_doubt(
        self, fn: TransactionalDoubt[In, Out, D], /
    ) -> TransactionalDoubt[In, Out, D]: ...
    @overload
    def compensation_on_doubt(
        self, fn: None = None, /, *, retries: int | None = None, timeout: Seconds | None = None
    ) -> DeclaresDoubt[In, Out]: ...
    def compensation_on_doubt(
        self,
        fn: Callable[..., Awaitable[None]] | None = None,
        /,
        *,
        retries: int | None = None,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare what undoes this step when nobody knows whether it happened.

        Declared alone, it undoes the completed step too.
        """
        return self._declare("undo_attempted", fn, retries, timeout)

    @overload
    def probe(self, fn: ProbeAction[In, Out], /) -> ProbeAction[In, Out]: ...
    @overload
    def probe(
        self, fn: None = None, /, *, retries: int = 5, timeout: Seconds | None = None
    ) -> Callable[[ProbeAction[In, Out]], ProbeAction[In, Out]]: ...
    def probe(
        self,
        fn: ProbeAction[Any, Any] | None = None,
        /,
        *,
        retries: int = 5,
        timeout: Seconds | None = None,
    ) -> Any:
        """Declare how to find out whether this step happened, once no retry is left.

        It answers `Happened(output)`, `NotHappened()` or `Unknown()`; one that raises is asked
        again up to *retries* times, and then it is unknown.
        """

        def declare(action: Callable[..., Any]) -> Callable[..., Any]:
            self._fill("asks", _probe(self, action, retries, timeout), "probe")
            return action

        return declare if fn is None else declare(fn)

    def undo(self, fn: UndoAction[In, Out] | TransactionalUndo[In, Out, Any]) -> Step[In, Out]:
        """A copy of this step that *fn* undoes."""
        undo = _undo(self, "undo_completed", fn, None, None)
        return replace(self, undo_completed=undo, no_undo_reason=None, sealed=False)

    def undo_with(
        self,
        other: Step[C, Any],
        bind: Callable[[Completed[In, Out]], C],
        *,
        on_doubt: Callable[[Attempted[In, Out]], C] | None = None,
    ) -> Step[In, Out]:
        """A copy of this step that another step undoes, on what *bind* makes of its outcome.

        With *on_doubt* it is undone so too while nobody knows whether it happened; its output may
        be missing then. Each attempt of the undo has the other step's time-out; how often it is
        tried is the compensation's own affair.
        """
        if not isinstance(other, Step):
            raise DefinitionError(f"{self.name}.undo_with() takes a step; {shown(other)} is none")
        if other.executor == "process":
            raise DefinitionError(
                f"{self.name}.undo_with(): {other.name} runs in a process of its own, which an "
                "undo cannot; let it be a plain @step"
            )
        place = f"{self.name}.undo_with()"
        check_plain(bind, f"{place}: bind", Completed, other.takes, called="(done)")
        attempted = self.undo_attempted
        if on_doubt is not None:
            check_plain(on_doubt, f"{place}: on_doubt", Attempted, other.takes, called="(tried)")
            attempted = _undo_by(other, on_doubt)
        return replace(
            self, undo_completed=_undo_by(other, bind), undo_attempted=attempted,
            no_undo_reason=None, sealed=False,
        )  # fmt: skip

    def without_undo(self, reason: str) -> Step[In, Out]:
        """A copy of this step that says why it needs no undo."""
        checked_reason(reason, f"{self.name}.without_undo()")
        if self.undo_of_completed is not None:
            raise DefinitionError(
                f"{self.name}.without_undo(): it has a compensation; take one of the two away"
            )
        return replace(self, no_undo_reason=reason, sealed=False)

    def named(self, name: str) -> Step[In, Out]:
        """A copy of this step under another name, for its second place in one flow."""
        return replace(self, name=checked_name(name, "step"), sealed=False)

    @property
    def undo_of_completed(self) -> Undo | None:
        """What takes this step back once it has completed."""
        return self.undo_completed or self.undo_attempted

    def _declare(
        self,
        slot: str,
        fn: Callable[..., Awaitable[None]] | None,
        retries: int | None,
        timeout: Seconds | None,
    ) -> Any:
        def declare(undo: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            self._fill(slot, _undo(self, slot, undo, retries, timeout), _CALLED[slot])
            return undo

        return declare if fn is None else declare(fn)

    def _fill(self, slot: str, value: object, what: str) -> None:
        if self.sealed:
            raise DefinitionError(
                f"step {self.name!r} is already part of a saga; "
                f"declare its {what} before the Saga is built"
            )
        if getattr(self, slot) is not None:
            raise DefinitionError(f"step {self.name!r} has this {what} already; declare it once")
        if self.no_undo_reason is not None and slot != "asks":
            raise DefinitionError(
                f"step {self.name!r} says that it needs no undo ({self.no_undo_reason}); "
                f"take its without_undo() or this {what} away"
            )
        object.__setattr__(self, slot, value)

    def __repr__(self) -> str:
        return self.name


_CALLED = {"undo_completed": "compensation", "undo_attempted": "compensation on doubt"}

LEFT_OUT: Any = object()
"""The worker's `step_timeout` applies; None means no limit at all."""


@overload
def step(fn: Action[A, B], /) -> Step[A, B]: ...


@overload
def step(fn: PlainAction[A, B], /) -> Step[A, B]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = ...,
    once: bool = False,
    heartbeat: Seconds | None = None,
    doubt_on: tuple[type[BaseException], ...] | None = None,
) -> Callable[[Action[A, B]], Step[A, B]]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = ...,
    once: bool = False,
    heartbeat: Seconds | None = None,
    doubt_on: tuple[type[BaseException], ...] | None = None,
    executor: Literal["thread", "process"],
) -> Callable[[PlainAction[A, B]], Step[A, B]]: ...


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = LEFT_OUT,
    once: bool = False,
    heartbeat: Seconds | None = None,
    doubt_on: tuple[type[BaseException], ...] | None = None,
    executor: Literal["thread", "process", ""] = "",
) -> Any:
    """Make a step of a function `(input, ctx) -> output`.

    An async function runs on the event loop, a plain one in a thread. `executor="process"` runs
    a plain function of a module's top level in a process of its own: for work that keeps the
    CPU busy; it gets a context without resources.

    `retries` and `timeout` (seconds or timedelta, for each attempt) are the step's own defaults;
    an explicit `Retry` or `Timeout` right around it takes their place. `timeout=None` means no
    limit at all; left out, the worker's `step_timeout` applies. `once=True` never runs the action
    again after a crash. With `heartbeat` (seconds or timedelta) an attempt that does not say
    `ctx.heartbeat()` for so long has timed out. `doubt_on` replaces the exceptions that leave the
    outcome in doubt.
    """

    def declare(fn: Callable[..., Any]) -> Step[Any, Any]:
        made = _step(fn, name, retries, timeout, parameters=2)
        if once and retries:
            raise DefinitionError(
                f"step {made.name!r}: once=True and retries contradict each other; take one away"
            )
        if doubt_on is not None:
            checked_errors(doubt_on, f"step {made.name!r}: doubt_on")
        _check_executor(made, executor)
        process: Literal["", "process"] = "process" if executor == "process" else ""
        silence = _checked_heartbeat(made, heartbeat, process)
        return replace(made, once=once, doubt_on=doubt_on, executor=process, heartbeat=silence)

    return declare if fn is None else declare(fn)


@overload
def transactional(fn: TransactionalAction[A, Any, B], /) -> Step[A, B]: ...


@overload
def transactional(
    *, name: str | None = None, retries: int = 0, timeout: Seconds | None = ...
) -> Callable[[TransactionalAction[A, Any, B]], Step[A, B]]: ...


def transactional(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: Seconds | None = LEFT_OUT,
) -> Any:
    """Make a step of an async function `(input, ctx, db) -> output` that writes to our database.

    Its SQL and the event that says so are one transaction: applied exactly once, never in doubt.
    The annotation of *db* says what it gets: an SQLAlchemy `AsyncSession` or `AsyncConnection`,
    or an asyncpg `Connection`. It must not commit. Its compensation may take *db* too.
    """

    def declare(fn: Callable[..., Any]) -> Step[Any, Any]:
        if callable(fn) and not inspect.iscoroutinefunction(fn):
            raise DefinitionError(
                f"{_name_of(fn)} is @transactional, so it must be an async function "
                "(input, ctx, db): what it awaits is the database"
            )
        made = _step(fn, name, retries, timeout, parameters=3)
        return replace(made, transaction=_wanted_transaction(fn, f"step {made.name!r}"))

    return declare if fn is None else declare(fn)


def _step(
    fn: Callable[..., Any],
    name: str | None,
    retries: int,
    timeout: Seconds | None,
    *,
    parameters: int,
) -> Step[Any, Any]:
    if not callable(fn) or isinstance(fn, type):
        raise DefinitionError(f"{shown(fn)} cannot be a step; make one of a function (input, ctx)")
    named = _name_of(fn) if name is None else name
    if named == "<lambda>":
        raise DefinitionError("a step needs a named function; a lambda cannot be told apart")
    place = f"step {checked_name(named, 'step')!r}"
    if is_generator(fn):
        raise DefinitionError(f"{place} yields; a step gives one output, so let it return that")
    if parameters == 2 and not accepts(fn, 2) and accepts(fn, 3):
        place = f"{place} (one that writes to our database is @transactional)"
    takes, gives = read_signature(fn, place, parameters=parameters)
    limit = None
    if timeout is not None and timeout is not LEFT_OUT:
        limit = checked_duration(timeout, f"{place}: timeout (None means no limit)")
    checked_count(retries, f"{place}: retries", least=0)
    return Step(named, fn, takes, gives, retries, limit, timeout is None)


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", None)
    if not isinstance(name, str):
        raise DefinitionError(f'{shown(fn)} has no name; give it one: @step(name="...")')
    return name


def _check_executor(made: Step[Any, Any], executor: object) -> None:
    place, fn = f"step {made.name!r}", made.action
    if executor not in ("", "thread", "process"):
        raise DefinitionError(f'{place}: executor is {shown(executor)}; say "thread" or "process"')
    if executor and inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"{place} is async, so it runs on the event loop; only plain functions go to "
            f'executor="{executor}"'
        )
    top_level = inspect.isfunction(fn) and "<" not in fn.__qualname__
    if executor == "process" and not top_level:
        raise DefinitionError(
            f'{place} cannot be found by another process: with executor="process" its function '
            "stands at the top level of a module, and is no closure, method or callable object"
        )


def _checked_heartbeat(
    made: Step[Any, Any], heartbeat: Seconds | None, executor: str
) -> timedelta | None:
    if heartbeat is None:
        return None
    place = f"step {made.name!r}"
    if executor == "process":
        raise DefinitionError(
            f"{place}: nobody hears a heartbeat from another process; take heartbeat or "
            'executor="process" away'
        )
    return checked_duration(heartbeat, f"{place}: heartbeat")


def _wanted_transaction(fn: Callable[..., Any], place: str) -> Any:
    """The annotation of the third parameter, which says what it gets."""
    wanted = annotation_of(fn, 2, place)
    if not isinstance(get_origin(wanted) or wanted, type):
        raise DefinitionError(
            f"{place}: the third parameter is the database, so annotate it as AsyncSession, "
            "AsyncConnection or asyncpg.Connection"
        )
    return wanted


def _undo(
    step: Step[Any, Any],
    slot: str,
    fn: Callable[..., Awaitable[None]],
    retries: int | None,
    timeout: Seconds | None,
) -> Undo:
    what = f"{_CALLED[slot]} of {step.name!r}"
    if not callable(fn) or isinstance(fn, type) or is_generator(fn):
        raise DefinitionError(
            f"{shown(fn)} cannot undo anything; give a function (done, ctx), or say "
            f"{step.name}.undo_with(step, bind)"
        )
    in_transaction = not accepts(fn, 2) and accepts(fn, 3)
    if not in_transaction:
        counts_parameters(fn, what, 2, "(done, ctx)")
    _check_outcome(step, Completed if slot == "undo_completed" else Attempted, fn, what)
    if retries is not None:
        checked_count(retries, f"{what}: retries", least=0)
    limit = None if timeout is None else checked_duration(timeout, f"{what}: timeout")
    wanted = _wanted_transaction(fn, what) if in_transaction else None
    return Undo(fn, limit, UndoPolicy(max_retries=retries), wanted)


def _probe(
    step: Step[Any, Any], fn: Callable[..., Any], retries: int, timeout: Seconds | None
) -> Probe:
    what = f"probe of {step.name!r}"
    if not callable(fn) or isinstance(fn, type) or is_generator(fn):
        raise DefinitionError(f"{shown(fn)} cannot be a probe; give a function (tried, ctx)")
    _, gives = read_signature(fn, what, parameters=2, called="(tried, ctx)")
    if not may_fit(gives, Happened | NotHappened | Unknown):
        raise DefinitionError(
            f"{what} gives {spell(gives)}; it gives Happened(output), NotHappened() or Unknown()"
        )
    _check_outcome(step, Attempted, fn, what)
    checked_count(retries, f"{what}: retries", least=0)
    limit = None if timeout is None else checked_duration(timeout, f"{what}: timeout")
    return Probe(fn, limit, retries)


def _check_outcome(
    step: Step[Any, Any], kind: type[Any], fn: Callable[..., Any], what: str
) -> None:
    """Refuse a function that takes the outcome of another kind, or of another step."""
    wanted = annotation_of(fn, 0, what)
    if wanted is None:
        return
    one, other = (get_args(wanted) or (Any, Any))[:2] if get_origin(wanted) is kind else (Any, Any)
    if not may_fit(kind, wanted) or not may_fit(step.takes, one) or not may_fit(step.gives, other):
        is_called = f"{kind.__name__}[{spell(step.takes)}, {spell(step.gives)}]"
        raise DefinitionError(
            f"{what} takes {spell(wanted)}, but it is called with {is_called}; let it take that"
        )


def _undo_by(other: Step[Any, Any], bind: Callable[[Any], Any]) -> Undo:
    """What undoes by another step, here or elsewhere."""
    if other.remote is not None:
        return Undo(bind, other.limit, remote=other.remote, takes=other.takes)
    return Undo(_bound(other.action, bind), other.limit, transaction=other.transaction)


def _bound(action: Callable[..., Any], bind: Callable[[Any], Any]) -> Callable[..., Any]:
    """*action* as an undo; a plain function stays plain, so that it runs in a thread."""

    async def undo(done: Completed[Any, Any], ctx: WorkflowContext, *db: Any) -> None:
        await action(bind(done), ctx, *db)

    def plain_undo(done: Completed[Any, Any], ctx: WorkflowContext) -> None:
        action(bind(done), ctx)

    return undo if inspect.iscoroutinefunction(action) else plain_undo
