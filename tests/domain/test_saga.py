"""What is checked when a saga is built, how defaults are spelled out, and what its shape is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.branching import Fallback
from orchestrator.domain.definition import Parallel, Sequential, pure
from orchestrator.domain.guards import Budget, Cache, CircuitBreaker, RateLimit
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga, still_fits, walk
from orchestrator.domain.steps import Step, step
from orchestrator.domain.waiting import sleep
from orchestrator.domain.wrappers import Keep, Pivot, Retry, Scope, Timeout, Using
from orchestrator.errors import DefinitionError

NAN, INF = float("nan"), float("inf")


async def act(value: Any, ctx: Any) -> Any:
    return value


def make(name: str, **options: Any) -> Step[Any, Any]:
    return step(name=name, **options)(act)


_LETTERS = {
    "Sequential": "S", "Parallel": "P", "Fallback": "F", "Scope": "Scope", "Keep": "K",
    "Using": "U", "Pivot": "!",
}  # fmt: skip


def shape(node: Any) -> str:
    """The tree in a line: R3(T5(a))."""
    inner = ",".join(shape(child) for child in node.children)
    match node:
        case Step(name=name):
            return name
        case Retry(max_retries=retries):
            return f"R{retries}({inner})"
        case Timeout(after=after):
            after = after if isinstance(after, timedelta) else timedelta(seconds=after)
            return f"T{after.total_seconds():g}({inner})"
        case Sequential() | Parallel() | Fallback() | Scope() | Keep() | Using() | Pivot():
            return f"{_LETTERS[type(node).__name__]}({inner})"
        case CircuitBreaker() | RateLimit() | Cache() | Budget():
            return f"{type(node).__name__}({inner})"
        case _:
            return str(getattr(node, "name", node))


def own() -> Step[Any, Any]:
    """A step with retries and a time-out of its own."""
    return make("a", retries=3, timeout=5)


def tree(body: Any) -> str:
    return shape(Saga("s", 1, body).tree)


# ---------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("name", "version", "match"),
    [
        ("", 1, "saga name ''"),
        ("a/b", 1, "use 1 to 100 letters"),
        ("a@b", 1, "use 1 to 100 letters"),
        ("a\nb", 1, "use 1 to 100 letters"),
        ("-a", 1, "the first a letter, a digit or '_'"),
        (".", 1, "use 1 to 100 letters"),
        ("x" * 101, 1, "use 1 to 100 letters"),
        (None, 1, "saga name None"),
        (7, 1, "saga name 7"),
        ("<lambda>", 1, "use 1 to 100 letters"),
        ("s", 0, r"saga 's': version \(count from 1\) is 0; give a whole number from 1"),
        ("s", -1, "is -1"),
        ("s", True, "is True"),
        ("s", "1", "is '1'"),
        ("s", 1.0, "is 1.0"),
        ("s", None, "is None"),
        ("s", 2**31, "is 2147483648"),
    ],
)
def test_a_wrong_name_or_version_is_refused(name: Any, version: Any, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        Saga(name, version, make("a"))


@pytest.mark.parametrize("bad", [0, -1, NAN, INF, 1e30, 10**400, True, "5", timedelta.max])
def test_a_deadline_is_a_time_above_nothing(bad: Any) -> None:
    with pytest.raises(DefinitionError, match=r"saga 's': deadline is .*; give"):
        Saga("s", 1, make("a"), deadline=bad)


def test_a_saga_is_printed_as_it_is_written() -> None:
    built = Saga("s", 1, make("a") >> make("b"))
    assert repr(built) == "Saga('s', version=1, body=a >> b)"
    assert repr(Saga("s", 2, make("a"), deadline=timedelta(days=3))) == (
        "Saga('s', version=2, body=a, deadline=259200)"
    )
    assert repr(built.child()) == "s.child()"
    assert repr(built.child(key=str.upper)) == "s.child(key=upper)"


def test_a_body_that_is_no_flow_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Saga\('s'\): act is a bare function"):
        Saga("s", 1, act)  # type: ignore[arg-type]  # what the test is about


def test_a_saga_is_no_body_of_a_saga() -> None:
    inner: Any = Saga("inner", 1, make("a"))
    with pytest.raises(DefinitionError, match=r"inner is a whole saga; .* inner\.child\(\)"):
        Saga("s", 1, inner)


def test_one_step_in_two_places_is_refused_until_it_is_named() -> None:
    a = make("a")
    with pytest.raises(DefinitionError, match=r"'a' stands in two places; .* a\.named"):
        Saga("s", 1, a >> make("b") >> a)
    assert list(Saga("s", 1, a >> a.named("again")).steps) == ["a", "again"]


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two places"):
        Saga("s", 1, make("a") | make("a"))


def test_a_refused_saga_leaves_its_steps_open() -> None:
    a = make("a")
    with pytest.raises(DefinitionError):
        Saga("s", 1, a >> a)
    assert not a.sealed


def test_one_step_may_belong_to_several_sagas() -> None:
    a = make("a")
    assert Saga("one", 1, a).steps["a"] is Saga("two", 1, a >> make("b")).steps["a"]


def test_a_saga_has_the_types_of_its_flow() -> None:
    @step
    async def hold(order: int, ctx: Any) -> str:
        return str(order)

    built = Saga("s", 1, hold.map(str.encode))
    assert (built.input_type, built.output_type) == (int, Any)


# ---------------------------------------------------------------------------- own defaults


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda: make("a"), "a"),
        (lambda: make("a", retries=3), "R3(a)"),
        (lambda: make("a", timeout=5), "T5(a)"),
        (lambda: make("a", retries=3, timeout=5), "R3(T5(a))"),
        (lambda: make("a", timeout=None), "a"),
        (lambda: make("a", retries=3, timeout=5) >> make("b"), "S(R3(T5(a)),b)"),
        (lambda: make("a", retries=3) | make("b", timeout=5), "P(R3(a),T5(b))"),
        # an explicit wrapper right around the step takes the place of its own default
        (lambda: make("a", retries=3, timeout=5).retry(1), "R1(T5(a))"),
        (lambda: make("a", retries=3, timeout=5).timeout(9), "R3(T9(a))"),
        (lambda: make("a", retries=3, timeout=5).timeout(9).retry(1), "R1(T9(a))"),
        (lambda: make("a", retries=3, timeout=5).retry(1).timeout(9), "T9(R1(T5(a)))"),
        # nesting is the semantics: inside of a time-out bounds each attempt, outside all of them
        (lambda: own().timeout(9).timeout(60), "T60(R3(T9(a)))"),
        (lambda: own().retry(1).retry(2), "R2(R1(T5(a)))"),
        (lambda: own().timeout(9).retry(1).timeout(60), "T60(R1(T9(a)))"),
        (lambda: own().retry(1).timeout(60).retry(2), "R2(T60(R1(T5(a))))"),
        # what only adapts the step is looked through, whichever comes first
        (lambda: own().circuit("c"), "CircuitBreaker(R3(T5(a)))"),
        (lambda: own().circuit("c").retry(1), "R1(CircuitBreaker(T5(a)))"),
        (lambda: own().circuit("c").timeout(9), "R3(T9(CircuitBreaker(a)))"),
        (lambda: own().circuit("c").timeout(9).retry(1), "R1(T9(CircuitBreaker(a)))"),
        (lambda: own().timeout(9).circuit("c"), "CircuitBreaker(R3(T9(a)))"),
        (lambda: own().timeout(9).circuit("c").retry(1), "R1(CircuitBreaker(T9(a)))"),
        (lambda: own().retry(1).circuit("c").timeout(9), "T9(CircuitBreaker(R1(T5(a))))"),
        (
            lambda: own().timeout(10).retry(5, on=(OSError,)).circuit("bank", failures=5),
            "CircuitBreaker(R5(T10(a)))",
        ),
        (lambda: own().pivot(), "!(R3(T5(a)))"),
        (lambda: own().pivot().timeout(9), "R3(T9(!(a)))"),
        (lambda: own().pivot().retry(1), "R1(!(T5(a)))"),
        (lambda: own().timeout(9).pivot(), "!(R3(T9(a)))"),
        (lambda: own().keep(), "K(R3(T5(a)))"),
        (lambda: own().keep().timeout(9), "R3(T9(K(a)))"),
        (lambda: own().keep().retry(1), "R1(K(T5(a)))"),
        (lambda: own().using(lambda v: v.input), "U(R3(T5(a)))"),
        (lambda: own().using(lambda v: v.input).timeout(9), "R3(T9(U(a)))"),
        (lambda: own().using(lambda v: v.input).retry(1), "R1(U(T5(a)))"),
        (lambda: own().cache(60).timeout(9), "R3(T9(Cache(a)))"),
        (lambda: own().cache(60).retry(1), "R1(Cache(T5(a)))"),
        (lambda: own().rate_limit("r", 1).retry(1).timeout(60), "T60(R1(RateLimit(T5(a))))"),
        (
            lambda: own().circuit("c").rate_limit("r", 1).budget(1).pivot().keep().timeout(9),
            "R3(T9(K(!(Budget(RateLimit(CircuitBreaker(a)))))))",
        ),
        # a mapped step is a step: what stands round both stands round the step
        (lambda: own().map(str), "S(R3(T5(a)),str)"),
        (lambda: own().map(str).timeout(9), "S(R3(T9(a)),str)"),
        (lambda: own().map(str).retry(1), "S(R1(T5(a)),str)"),
        (lambda: own().map(str).timeout(9).map(len).retry(1), "S(R1(T9(a)),str,len)"),
        (lambda: (pure(abs) >> own() >> pure(str)).retry(1), "S(abs,R1(T5(a)),str)"),
        (lambda: own().circuit("c").map(str).retry(1), "S(R1(CircuitBreaker(T5(a))),str)"),
        (lambda: own().map(str).using(lambda v: v.input).retry(1), "S(R1(U(T5(a))),str)"),
        (lambda: own().map(str).cache(60), "S(Cache(R3(T5(a))),str)"),
        (lambda: make("b") >> own().map(str).retry(1) >> make("c"), "S(b,R1(T5(a)),str,c)"),
        (lambda: own().map(str).keep().retry(1), "R1(K(S(R3(T5(a)),str)))"),
        (lambda: (own().map(str) >> make("b")).retry(1), "R1(S(R3(T5(a)),str,b))"),
        (lambda: own().map(str).scope().retry(1), "R1(Scope(S(R3(T5(a)),str)))"),
        (lambda: own().map(str).fallback(make("b").map(str)), "F(S(R3(T5(a)),str),S(b,str))"),
        # around a composite it is another thing: the defaults stay
        (lambda: Retry(make("a", retries=3) >> make("b"), 1), "R1(S(R3(a),b))"),
        (lambda: Timeout(make("a", timeout=5) >> make("b"), 9), "T9(S(T5(a),b))"),
        (lambda: own().scope().timeout(9).retry(1), "R1(T9(Scope(R3(T5(a)))))"),
        (lambda: own().fallback(make("b")).retry(1), "R1(F(R3(T5(a)),b))"),
        (lambda: Compensation(((make("a", retries=2), None),)), "Scope(S(R2(a)))"),
        (
            lambda: Compensation(((make("a", retries=2), None), (make("b"), None))).retry(1),
            "R1(Scope(S(R2(a),b)))",
        ),
        (
            lambda: Compensation(((make("a"), None), (make("b"), None))) >> make("c"),
            "S(Scope(S(a,b)),c)",
        ),
        (lambda: sleep(1).retry(1).timeout(5), "T5(R1(sleep(1)))"),
        (lambda: pure(str), "str"),
    ],
)
def test_own_defaults_are_spelled_as_the_wrappers_they_stand_for(body: Any, expected: str) -> None:
    assert tree(body()) == expected


def test_defaults_and_wrappers_are_the_same_tree_with_the_same_fingerprint() -> None:
    spelled = Saga("s", 1, Retry(Timeout(make("a"), 5), 3))
    short = Saga("s", 1, make("a", retries=3, timeout=5))
    fluent = Saga("s", 1, make("a").timeout(5).retry(3))
    assert shape(spelled.tree) == shape(short.tree) == shape(fluent.tree)
    assert spelled.fingerprint == short.fingerprint == fluent.fingerprint


# ---------------------------------------------------------------------------- fingerprint


def body(**options: Any) -> Any:
    return make("a", **options) >> (make("b") | make("c")) >> pure(str)


def test_the_formula_of_the_fingerprint_never_changes() -> None:
    assert Saga("s", 1, body()).fingerprint == ("517c31597c1b.9155da0cbc06.8dbde50a5681")


def test_the_fingerprint_ignores_what_no_history_depends_on() -> None:
    one = Saga("s", 1, body(retries=2)).fingerprint
    assert one == Saga("other", 7, body(retries=5)).fingerprint


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (lambda: body(retries=2), {0}),
        (lambda: make("x") >> (make("b") | make("c")) >> pure(str), {0}),
        (lambda: make("a") >> (make("c") | make("b")) >> pure(str), {1}),
        (lambda: make("a") >> (make("b") | make("c")).retry() >> pure(str), {1}),
        (lambda: make("a") >> (make("b") | make("c")) >> pure(repr), {2}),
        (lambda: make("a") >> (make("b") | make("c")), {2}),
        (lambda: make("a") >> make("b") >> make("c") >> pure(str), {1, 2, 3}),
        (lambda: Timeout(body(), 5), {0, 1, 2}),
    ],
)
def test_the_fingerprint_changes_with_the_shape_of_each_part(other: Any, parts: set[int]) -> None:
    one = Saga("s", 1, body()).fingerprint.split(".")
    two = Saga("s", 1, other()).fingerprint.split(".")
    differ = {i for i in range(max(len(one), len(two))) if one[i : i + 1] != two[i : i + 1]}
    assert differ == parts


@pytest.mark.parametrize(
    ("begun", "present", "reached", "fits"),
    [
        ("a.b.c", "a.b.c", 2, True),
        ("a.b.c", "a.b.c", 9, True),
        ("a.b.c", "a.b.x", 1, True),
        ("a.b.c", "a.b.x", 2, False),
        ("a.b", "a.b.c", 1, True),
        ("a.b.c", "a.b", 1, True),
        ("a.b.c", "a.b", 2, False),
        ("a.b", "x.b", 0, False),
        ("a", "a", 0, True),
        ("a", "x", 0, False),
        ("a", "a.b", 0, False),
        ("a.b", "a", 0, False),
    ],
)
def test_an_instance_goes_on_when_all_that_it_reached_is_as_it_was(
    begun: str, present: str, reached: int, fits: bool
) -> None:
    assert still_fits(begun, present, reached) is fits


def test_walking_goes_parents_first_in_written_order() -> None:
    flow = make("a") >> (make("b") | make("c"))
    assert [repr(node) for node in walk(flow)] == ["a >> (b | c)", "a", "b | c", "b", "c"]
