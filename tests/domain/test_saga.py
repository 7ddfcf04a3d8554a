"""What is checked when a saga is built, how defaults are spelled out, and what its shape is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.domain.definition import Parallel, Retry, Sequential, Timeout, pure
from orchestrator.domain.pairs import Compensation
from orchestrator.domain.saga import Saga, is_composite, walk
from orchestrator.domain.steps import Step, step
from orchestrator.errors import DefinitionError


async def act(value: Any, ctx: Any) -> Any:
    return value


def make(name: str, **options: Any) -> Step[Any, Any]:
    return step(name=name, **options)(act)


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
        case Sequential():
            return f"S({inner})"
        case Parallel():
            return f"P({inner})"
        case _:
            return str(node.name)


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
        ("<lambda>", 1, "use 1 to 100 letters"),
        ("s", 0, "version is 0; count from 1"),
        ("s", -1, "version is -1"),
        ("s", True, "version is True"),
        ("s", "1", "version is '1'"),
    ],
)
def test_a_wrong_name_or_version_is_refused(name: str, version: Any, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        Saga(name, version, make("a"))


def test_a_body_that_is_no_flow_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Saga\('s'\): act is a bare function"):
        Saga("s", 1, act)  # type: ignore[arg-type]  # what the test is about


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
        # around a composite it is another thing: the defaults stay
        (lambda: Retry(make("a", retries=3) >> make("b"), 1), "R1(S(R3(a),b))"),
        (lambda: Timeout(make("a", timeout=5) >> make("b"), 9), "T9(S(T5(a),b))"),
        (lambda: Compensation(((make("a", retries=2), None),)), "S(R2(a))"),
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
    assert Saga("s", 1, body()).fingerprint == "3d3e1c70202bf5ea"


def test_the_fingerprint_ignores_what_no_history_depends_on() -> None:
    one = Saga("s", 1, body(retries=2)).fingerprint
    assert one == Saga("other", 7, body(retries=5)).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        lambda: body(retries=2),
        lambda: make("x") >> (make("b") | make("c")) >> pure(str),
        lambda: make("a") >> (make("c") | make("b")) >> pure(str),
        lambda: make("a") >> make("b") >> make("c") >> pure(str),
        lambda: make("a") >> (make("b") | make("c")) >> pure(repr),
        lambda: make("a") >> (make("b") | make("c")),
        lambda: Timeout(body(), 5),
    ],
)
def test_the_fingerprint_changes_with_the_shape(other: Any) -> None:
    assert Saga("s", 1, other()).fingerprint != Saga("s", 1, body()).fingerprint


# ---------------------------------------------------------------------------- composites


@pytest.mark.parametrize(
    ("node", "composite"),
    [
        (lambda: make("a"), False),
        (lambda: pure(str), False),
        (lambda: make("a").retry(1).timeout(2).retry(3), False),
        (lambda: make("a") >> make("b"), True),
        (lambda: make("a") | make("b"), True),
        (lambda: Timeout(Retry(make("a") >> make("b")), 5), True),
        (lambda: Compensation(((make("a"), None),)), True),
    ],
)
def test_a_wrapper_is_a_scope_round_what_can_complete_more_than_one_thing(
    node: Any, composite: bool
) -> None:
    assert is_composite(node()) is composite


def test_walking_goes_parents_first_in_written_order() -> None:
    flow = make("a") >> (make("b") | make("c"))
    assert [repr(node) for node in walk(flow)] == ["a >> (b | c)", "a", "b | c", "b", "c"]
