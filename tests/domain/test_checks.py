"""What only the whole tree shows: names, pivots, caches, guards, signals, children, limits."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.branching import Fallback, Router, each, loop, when
from orchestrator.domain.checks import CHILD_DEPTH_LIMIT, DEPTH_LIMIT, SIZE_LIMIT
from orchestrator.domain.definition import Parallel, Sequential, pure
from orchestrator.domain.flow import Flow, flow
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga
from orchestrator.domain.steps import Attempted, Completed, Happened, step, transactional
from orchestrator.domain.waiting import Signal, sleep
from orchestrator.domain.wrappers import Pivot, Retry, Timeout
from orchestrator.errors import DefinitionError, DefinitionWarning


async def act(value: Any, ctx: Any) -> Any:
    return value


async def back(done: Completed[Any, Any], ctx: Any) -> None: ...


async def settle(tried: Attempted[Any, Any], ctx: Any) -> None: ...


async def ask(tried: Attempted[Any, Any], ctx: Any) -> Happened[Any]:
    return Happened(tried.input)


class Db: ...


async def write(value: Any, ctx: Any, db: Db) -> Any:
    return value


def plain(name: str) -> Any:
    """A step that says that it needs no undo."""
    return step(name=name)(act).without_undo("it is only looked at")


def undone(name: str) -> Any:
    made = step(name=name)(act)
    made.compensation(back)
    return made


def probed(name: str) -> Any:
    made = step(name=name)(act)
    made.probe(ask)
    return made


def always(value: Any) -> bool:
    return True


def route(value: Any, ctx: Any) -> str:
    return "a"


a, b, c = plain("a"), plain("b"), plain("c")
child = Saga("child", 1, undone("x") >> undone("y"))
pivoted = Saga("pivoted", 1, undone("x") >> plain("y").pivot())


@flow
async def code(value: Any, f: Flow) -> Any:
    return value


def refused(match: str) -> Any:
    return pytest.raises(DefinitionError, match=match)


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "body",
    [
        lambda: a >> b >> a,
        lambda: a | a,
        lambda: a >> (b | (c >> a)),
        lambda: when(always, then=a, otherwise=a),
        lambda: a >> when(always, then=a),
        lambda: Router({"one": a, "two": b >> a}, route),
        lambda: Fallback(a, [a]),
        lambda: Fallback(b, [c >> a]) >> a,
        lambda: each(a) >> each(a),
        lambda: loop(a, until=always, max_iterations=3) >> a,
        lambda: a.retry() >> a.timeout(5),
        lambda: a.pivot() >> a.keep(),
        lambda: a.using(lambda v: v.input) >> a.scope(),
        lambda: Compensation(((a, None), (a, back))),
        lambda: a >> step(name="a")(act),
    ],
)
def test_one_step_in_two_places_is_refused_until_it_is_named(body: Any) -> None:
    with refused(r"saga 's': step 'a' stands in two places; .* a\.named\(\"\.\.\.\"\)"):
        Saga("s", 1, body())


def test_named_copies_and_steps_of_children_are_steps_of_their_own() -> None:
    assert list(Saga("s", 1, a >> a.named("again")).steps) == ["a", "again"]
    twice = undone("x") >> child.child() >> (child.child() | each(child.child()))
    assert list(Saga("s", 1, twice).steps) == ["x"]


# ---------------------------------------------------------------------------- pivots


@pytest.mark.parametrize(
    "body",
    [
        a.pivot,
        lambda: a.pivot() >> b,
        lambda: a >> b.pivot() >> c.retry(1_000),
        lambda: a >> b.timeout(5).retry(3).pivot(),
        lambda: a >> b.pivot().timeout(5).retry(3).keep(),
        lambda: a >> b.pivot().circuit("bank").budget(5).using(lambda v: v.input),
        lambda: a >> b.pivot().map(str),
        lambda: a >> pivoted.child().pivot() >> b,
        lambda: a >> child.child().retry(2).timeout(60).pivot() >> b,
        lambda: undone("d").pivot() >> b,
        lambda: a.pivot() >> child.child() >> each(child.child()),
        lambda: a.pivot() >> (b | c) >> Fallback(plain("d"), [plain("e")]) >> code,
        lambda: a >> transactional(write).without_undo("kept").pivot() >> b,
        lambda: Sequential((a, Sequential((b.pivot(), c)))),
    ],
)
def test_a_pivot_stands_on_the_spine(body: Any) -> None:
    assert any(isinstance(n, Pivot) for n in all_nodes(Saga("s", 1, body(), strict=True).tree))


def all_nodes(node: Any) -> list[Any]:
    return [node, *(below for child in node.children for below in all_nodes(child))]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (lambda: a.pivot() | b, r"a\.pivot\(\) stands inside of a\.pivot\(\) \| b; a pivot stands"),
        (lambda: c >> (a.pivot() >> b).retry(), "stands inside of Retry"),
        (lambda: c >> (a.pivot() >> b).timeout(5), "stands inside of Timeout"),
        (lambda: c >> (a.pivot() >> b).keep(), "stands inside of .*keep"),
        (lambda: c >> a.pivot().scope(), "stands inside of Scope"),
        (lambda: c >> a.pivot().fallback(b), "stands inside of Fallback"),
        (lambda: c >> b.fallback(a.pivot()), "stands inside of Fallback"),
        (lambda: Router({"one": a.pivot(), "two": b}, route), "stands inside of Router"),
        (lambda: c >> when(always, then=a.pivot()), "stands inside of when"),
        (lambda: c >> each(a.pivot()), "stands inside of each"),
        (lambda: c >> loop(a.pivot(), until=always, max_iterations=2), "stands inside of loop"),
        (lambda: c >> (a.pivot() >> b).budget(5), "stands inside of Budget"),
        (lambda: a.pivot().pivot(), r"a\.pivot\(\) follows .*; .* take the second"),
        (lambda: a.pivot().retry().pivot(), "take the second .pivot"),
        (lambda: a.pivot() >> b.pivot(), r"b\.pivot\(\) follows a\.pivot\(\); after one pivot"),
        (lambda: a.pivot() >> b >> pivoted.child().pivot(), "follows a.pivot"),
        (lambda: a.pivot() >> (b | c.pivot()), "follows a.pivot"),
        ((a >> b).pivot, "a >> b cannot be a pivot; a pivot is one step or child saga"),
        ((a | b).pivot, r"a \| b cannot be a pivot"),
        (
            lambda: a.map(str).pivot(),
            r"cannot be a pivot; .* say \.pivot\(\) right after that step",
        ),
        (lambda: a.scope().pivot(), "cannot be a pivot"),
        (lambda: a.fallback(b).pivot(), "cannot be a pivot"),
        (lambda: each(a).pivot(), "cannot be a pivot"),
        (code.pivot, "code cannot be a pivot"),
        (lambda: sleep(5).pivot(), "cannot be a pivot"),
        (lambda: pure(str).pivot(), "cannot be a pivot"),
        (lambda: Signal("v", int).wait().pivot(), "cannot be a pivot"),
        (lambda: child.child().pivot().retry(), r"scope round a pivot, .*; say \.pivot\(\) last"),
        (lambda: child.child().pivot().timeout(5).keep(), "is a scope round a pivot"),
    ],
)
def test_a_pivot_anywhere_else_is_refused(body: Any, match: str) -> None:
    with refused(f"saga 's': .*{match}"):
        Saga("s", 1, body())


@pytest.mark.parametrize(
    "after",
    [
        lambda d: d,
        lambda d: d.retry(),
        lambda d: b | d,
        each,
        lambda d: loop(d, until=always, max_iterations=2),
        lambda d: Fallback(b, [d]),
        lambda d: when(always, then=d),
        lambda d: b >> (c >> d).scope(),
        lambda d: Compensation(((plain("e"), back),)),
    ],
)
@pytest.mark.parametrize("declare", ["compensation", "compensation_on_doubt"])
def test_nothing_that_would_be_undone_comes_after_a_pivot(after: Any, declare: str) -> None:
    d = step(name="d")(act)
    getattr(d, declare)(back if declare == "compensation" else settle)
    with refused(r"[de] has a compensation, but it comes after a\.pivot\(\).*; move it before"):
        Saga("s", 1, a.pivot() >> after(d))


@pytest.mark.parametrize(
    "body",
    [
        pivoted.child,
        lambda: a >> pivoted.child().retry(),
        lambda: a | pivoted.child(),
        lambda: each(pivoted.child()),
        lambda: loop(pivoted.child(), until=always, max_iterations=2),
        lambda: a.pivot() >> pivoted.child(),
    ],
)
def test_a_child_that_has_a_pivot_says_so_in_its_parent(body: Any) -> None:
    with refused(
        r"saga 's': 'pivoted' has a pivot, so .*; say so, on the spine: pivoted\.child\(\)\.pivot"
    ):
        Saga("s", 1, body())


def test_a_grandchild_with_a_pivot_is_a_pivot_all_the_way_up() -> None:
    middle = Saga("middle", 1, pivoted.child().pivot())
    with refused("'middle' has a pivot"):
        Saga("s", 1, a >> middle.child())
    assert Saga("s", 1, a >> middle.child().pivot()).steps


# ---------------------------------------------------------------------------- caches and guards


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (lambda: undone("d").cache(60), "'d' is undone when the saga turns round, so its output"),
        (lambda: undone("d").retry().cache(60), "'d' is undone"),
        (lambda: undone("d").timeout(5).circuit("c").cache(60), "'d' is undone"),
        (lambda: a >> undone("d").cache(60).keep().scope(), "'d' is undone"),
        (lambda: probed("d").cache(60), "'d' is undone"),
        (lambda: transactional(write).cache(60), "'write' writes to the database, so its output"),
        (lambda: a.pivot().cache(60), "'a' is a pivot|'a' is undone"),
        (lambda: a.cache(60).pivot(), "'a' is a pivot, so its output cannot come from a cache"),
        (lambda: (a >> b).cache(60), r"Cache\(a >> b, 60\) is not round a step; put the cache"),
        (lambda: (a | b).cache(60), "is not round a step"),
        (lambda: (a >> b).retry().cache(60), "is not round a step"),
        (lambda: each(a).cache(60), "is not round a step"),
        (lambda: a.scope().cache(60), "is not round a step"),
        (lambda: a.fallback(b).cache(60), "is not round a step"),
        (lambda: when(always, then=a).cache(60), "is not round a step"),
        (lambda: child.child().cache(60), "is not round a step"),
        (lambda: code.cache(60), "is not round a step"),
        (lambda: sleep(1).cache(60), "is not round a step"),
        (lambda: pure(str).cache(60), "is not round a step"),
        (lambda: (pure(str) >> a).cache(60), "is not round a step"),
        (lambda: sleep(1).circuit("bank"), "guards no step; put it round the step that makes"),
        (lambda: pure(str).rate_limit("r", 1), "guards no step"),
        (lambda: (sleep(1) >> child.child()).budget(5), "guards no step"),
        (lambda: child.child().circuit("bank"), "guards no step; .* child saga has guards of its"),
        (
            lambda: a.circuit("bank") >> b.circuit("bank", failures=2),
            "two of CircuitBreaker are called 'bank' and do not say the same",
        ),
        (lambda: a.rate_limit("r", 1) >> b.rate_limit("r", 2), "two of RateLimit are called 'r'"),
        (lambda: a.budget(1, name="m") >> b.budget(2, name="m"), "two of Budget are called 'm'"),
        (lambda: a.cache(60, name="n") >> b.named("d").cache(5, name="n"), "two of Cache are .*n"),
        (lambda: a.cache(60, name="b") >> other("b").cache(60), "two of Cache are called 'b'"),
    ],
)
def test_a_policy_that_cannot_hold_is_refused(body: Any, match: str) -> None:
    with refused(f"saga 's': .*({match})"):
        Saga("s", 1, body())


def other(name: str) -> Any:
    async def another(value: Any, ctx: Any) -> Any:
        return value

    return step(name=name)(another)


@pytest.mark.parametrize(
    "body",
    [
        lambda: a.cache(60) >> b,
        lambda: each(a.cache(60)),
        (a.cache(60) >> b).retry,
        lambda: (a.cache(60) | b).scope().timeout(5),
        lambda: undone("d") >> a.cache(60).circuit("c").rate_limit("r", 1).budget(5),
        lambda: a.map(str).cache(60),
        lambda: a.cache(60, name="n") >> a.named("d").cache(60, name="n"),
        lambda: a.circuit("bank") >> (b >> c).circuit("bank").circuit("other"),
        lambda: a.circuit("bank") >> b.rate_limit("bank", 1) >> c.cache(5, name="bank"),
        lambda: a.budget(1) >> b.budget(2),
        lambda: code.circuit("bank").budget(5),
        lambda: each(a).rate_limit("r", 1).budget(5, name="m", per=60),
    ],
)
def test_policies_of_calls_that_may_stand_are_accepted(body: Any) -> None:
    assert Saga("s", 1, body()).steps is not None


# ---------------------------------------------------------------------------- signals


def test_two_signals_of_one_name_carry_the_same() -> None:
    one, two = Signal("verdict", int), Signal("verdict", str)
    with refused("saga 's': signal 'verdict' carries int in one place and str in another; give"):
        Saga("s", 1, one.wait() >> a >> two.wait())
    with refused("carries int in one place and str"):
        Saga("s", 1, a >> (one.wait() | each(two.wait(within=5)).scope()))
    again = Saga("s", 1, one.wait() >> one.wait(within=5) >> Signal("verdict", int).wait())
    assert again.output_type is int
    separate = Saga("inner", 1, two.wait()).child()
    assert Saga("s", 1, one.wait() >> pure(str) >> separate).output_type is str


# ---------------------------------------------------------------------------- children


def test_a_saga_is_not_its_own_child() -> None:
    one = Saga("one", 1, a)
    two = Saga("two", 1, b >> one.child())
    with refused(r"'one' would be its own child: one/1 > two/1 > one/1; to do a thing again use"):
        Saga("one", 1, two.child())
    with refused("'one' would be its own child: one/1 > one/1"):
        Saga("one", 1, each(one.child()))
    assert Saga("one", 2, c >> one.child()).steps


def test_two_children_of_one_name_and_version_are_one_saga() -> None:
    one, same_name = Saga("one", 1, a), Saga("one", 1, b)
    with refused(
        r"saga 's': two different sagas are called 'one' version 1 \(s/1 > one/1\); build"
    ):
        Saga("s", 1, one.child() >> same_name.child())
    between = Saga("between", 1, same_name.child())
    with refused("two different sagas are called 'one' version 1"):
        Saga("s", 1, one.child() >> between.child())
    assert Saga("s", 1, one.child() >> one.child() >> Saga("one", 2, c).child())


def test_children_nest_within_a_limit() -> None:
    saga = Saga("n1", 1, a)
    for level in range(2, CHILD_DEPTH_LIMIT + 1):
        saga = Saga(f"n{level}", 1, saga.child())
    with refused(f"saga 'top': children nest deeper than {CHILD_DEPTH_LIMIT}: top/1 > n"):
        Saga("top", 1, saga.child())


def test_children_that_share_children_are_checked_in_a_moment() -> None:
    saga = Saga("n0", 1, a)
    for level in range(1, CHILD_DEPTH_LIMIT):
        many: Any = Parallel(tuple(saga.child() for _ in range(20)))
        saga = Saga(f"n{level}", 1, many.map(lambda parts: parts[0]))
    assert saga.name == f"n{CHILD_DEPTH_LIMIT - 1}"


def number(value: int) -> int:
    return value


async def later(value: Any) -> str:
    return ""


def word(value: str) -> str:
    return value


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (a, r"one\.child\(\): key is a; give a plain function"),
        ("key", r"one\.child\(\): key is 'key'; give a plain function"),
        (later, "key: later is async or a generator"),
        (lambda: "", r"key takes \(\), but it is called with \(input\)"),
        (number, "number gives int, but str is needed"),
        (word, "word takes str, but it is called with int"),
    ],
)
def test_a_key_of_a_child_is_a_plain_function_of_its_input(key: Any, match: str) -> None:
    one = Saga("one", 1, pure(number) >> a)
    with refused(match):
        one.child(key=key)


# ---------------------------------------------------------------------------- limits


def test_a_tree_is_not_nested_too_deeply() -> None:
    deep = a
    for _ in range(DEPTH_LIMIT - 1):
        deep = deep.scope()
    assert Saga("s", 1, deep)
    with refused(f"saga 's' is nested deeper than {DEPTH_LIMIT} levels at 'a'; make a child saga"):
        Saga("s", 1, deep.scope())


@pytest.mark.parametrize("wrap", [Retry, lambda node: Timeout(node, 5), lambda node: node.scope()])
def test_a_tree_without_a_bottom_is_refused_all_the_same(wrap: Any) -> None:
    deep = a
    for _ in range(20_000):
        deep = wrap(deep)
    with refused("nested deeper than"):
        Saga("s", 1, deep)


def test_a_tree_is_not_too_large() -> None:
    with refused(rf"saga 's' has more than {SIZE_LIMIT:,} parts; use each\(\) over a list"):
        Saga("s", 1, Sequential(tuple(a.named(f"a{n}") for n in range(SIZE_LIMIT))))
    wide: Any = a | b
    for _ in range(12):
        wide = Parallel((wide, wide))
    with refused("has more than 5,000 parts"):
        Saga("s", 1, wide)


# ---------------------------------------------------------------------------- warnings


def problems(body: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Saga("s", 1, body)
    assert {warning.category for warning in caught} <= {DefinitionWarning}
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


def test_a_step_before_a_pivot_that_says_nothing_of_its_undo_is_a_warning() -> None:
    silent, second = step(name="silent")(act), step(name="second")(act)
    body = silent >> (undone("d") | second) >> a >> b.pivot() >> step(name="e")(act)
    found = problems(body)
    assert len(found) == 2
    assert "step 'silent' comes before the pivot and says nothing of its undo" in found[0]
    assert 'declare @silent.compensation, or silent.without_undo("why")' in found[0]
    assert "step 'second'" in found[1]
    with refused("'silent' comes before the pivot"):
        Saga("s", 1, body, strict=True)


@pytest.mark.parametrize(
    "scope",
    [
        lambda d: (d >> a).retry(),
        lambda d: (d | a).timeout(5),
        lambda d: d.scope(),
        lambda d: d.fallback(a),
        lambda d: Compensation(((d, back), (a, None))),
    ],
)
def test_a_scope_that_a_doubtful_step_may_park_is_a_warning(scope: Any) -> None:
    found = problems(scope(undone("d")))
    assert len(found) == 1
    assert "nobody knows whether 'd' happened" in found[0]
    assert "declare @d.probe or @d.compensation_on_doubt" in found[0]
    with refused("nobody knows whether 'd' happened"):
        Saga("s", 1, scope(undone("d")), strict=True)


def test_a_step_that_settles_its_doubt_or_cannot_doubt_is_no_warning() -> None:
    settled, answered = undone("settled"), undone("answered")
    settled.compensation_on_doubt(settle)
    answered.probe(ask)
    written = transactional(write).undo(back)
    assert problems((settled >> answered >> written >> a).scope()) == []
    assert problems(undone("d").retry().timeout(5) >> undone("e").map(str).retry()) == []
    assert problems(undone("d") >> Saga("inner", 1, undone("d") | a).child().scope()) == []


def test_a_refused_saga_leaves_its_steps_open() -> None:
    made = step(name="made")(act)
    with refused("two places"):
        Saga("s", 1, made >> made, deadline=timedelta(days=1))
    assert not made.sealed
    Saga("s", 1, made)
    assert made.sealed
