"""The Mermaid graph: a way through every part, boxes round what is many, labels that end nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import Fallback, Retry, Router, each, loop, pure
from orchestrator.domain import events as ev
from orchestrator.domain.drawing import DONE, WAITING
from orchestrator.domain.events import Json
from orchestrator.domain.evolve import fold
from orchestrator.domain.graph import mermaid
from tests.domain.test_drawing import EVERY, listed, many
from tests.histories.test_histories import RECORDED, SAGAS, history
from tests.mermaid import read
from tests.parts import kept, plain, saga
from tests.spec import BROKEN, SAGA_ID, begin, given


def total(parts: Any) -> int:
    return sum(parts)


def test_a_graph_goes_from_the_start_through_every_branch_to_the_end() -> None:
    forked = saga(plain("hold") >> (plain("by_air") | plain("ship")) >> pure(total), "fork")
    assert mermaid(forked).splitlines() == [
        "flowchart LR",
        '    n1["hold"]',
        '    n2{"side by side"}',
        '    n3["by_air"]',
        "    n2 --> n3",
        '    n4["ship"]',
        "    n2 --> n4",
        "    n1 --> n2",
        '    n5["pure total"]',
        "    n3 --> n5",
        "    n4 --> n5",
        '    start(("fork"))',
        "    start --> n1",
        '    done(("end"))',
        "    n5 --> done",
    ]


def test_a_graph_with_a_state_carries_marks_and_one_without_carries_none() -> None:
    line = saga(plain("hold") >> plain("ship"))
    state = fold(SAGA_ID, [begin(line), ev.StepSucceeded("s/0", "hold", 1, Json("1"))])
    drawn = read(mermaid(line, state))
    assert list(drawn.nodes.values())[:2] == [f"{DONE} hold", f"{WAITING} ship"]
    assert list(read(mermaid(line)).nodes.values())[:2] == ["hold", "ship"]


def test_what_stands_round_one_step_is_told_in_its_node() -> None:
    chart = read(mermaid(saga(kept("pay").timeout(10).retry(5).circuit("bank"))))
    assert list(chart.nodes.values()) == [
        "pay\nundo\nwithin 10 s\nretry up to 5 times\ncircuit bank", "s", "end"
    ]  # fmt: skip
    assert chart.boxes == {}


def test_what_stands_round_several_is_a_box() -> None:
    chart = read(mermaid(saga(Retry(plain("a") >> plain("b"), 2))))
    assert list(chart.boxes.values()) == ["retry up to 2 times"]
    assert chart.edges == {("s", "a"), ("a", "b"), ("b", "end")}


def test_the_arrows_of_a_choice_say_which_it_is() -> None:
    routes = Router({"low": plain("a"), "high": plain("b")}, lambda v, ctx: "low")
    assert [name for _, _, name in read(mermaid(saga(routes))).arrows] == [
        "low",
        "high",
        "",
        "",
        "",
    ]
    tried = Fallback(plain("a"), [plain("b")])
    assert [name for _, _, name in read(mermaid(saga(tried))).arrows[:2]] == [
        "first",
        "alternative 1",
    ]


def test_no_name_of_a_function_or_a_route_ends_a_label_or_is_taken_for_markup() -> None:
    def odd(value: Any) -> Any:
        return value

    names = ['<b> & "x" #lt; `y`', "a\nb", "<lambda>", "end", "\\"]
    for name in names:
        odd.__name__ = name
        chart = read(mermaid(saga(pure(odd))))
        assert chart.nodes["n1"] == f"pure {' '.join(name.split())}"


@pytest.mark.parametrize("name", EVERY)
def test_every_primitive_lies_on_a_way_from_the_start_to_the_end(name: str) -> None:
    chart = read(mermaid(saga(EVERY[name][0])))
    assert chart.reachable(forward=True) == set(chart.nodes) == chart.reachable(forward=False)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_so_does_every_place_of_a_recorded_history(path: Path) -> None:
    events = [event for event, _ in history(path)[1]]
    for length in range(1, len(events) + 1):
        chart = read(mermaid(SAGAS[path.stem], fold(SAGA_ID, events[:length])))
        assert chart.reachable(forward=True) == set(chart.nodes) == chart.reachable(forward=False)


def test_a_list_of_ten_thousand_items_is_a_box_with_a_few_of_them() -> None:
    fates = [ev.ItemFailed("s/1", item, BROKEN) for item in range(500)]
    chart = read(mermaid(*many(10_000, *fates, bound=500)))
    assert next(iter(chart.boxes.values())).startswith(
        "each, 500 at once: 0 of 10,000 done, 500 fail"
    )
    assert "and 490 more items failed or in doubt" in chart.nodes.values()
    assert len(chart.nodes) < 40


def test_the_state_of_a_flow_does_not_move_to_its_neighbours() -> None:
    run = given(saga(plain("x") >> EVERY["flow"][0] >> plain("y"))).when_step_fails("y")
    chart = read(mermaid(run.run.saga, run.drive.state))
    assert "✗ y" in chart.nodes.values()
    assert "✓ x" in chart.nodes.values()
    assert next(iter(chart.boxes.values())) == "↩ flow careful: 1 request"


def test_a_loop_round_one_step_is_one_node() -> None:
    turning = saga(loop(plain("a"), until=lambda v: False, max_iterations=3))
    run = given(turning).when_step_succeeds("a", times=2)
    assert (
        "✓ a\nloop, at most 3 times: iteration 3"
        in read(mermaid(turning, run.drive.state)).nodes.values()
    )


def test_items_stand_side_by_side() -> None:
    body = pure(listed) >> each(plain("a") >> plain("b"), concurrency=2)
    run = given(saga(body)).when_step_gives("listed", "[1,2]").when_step_fails("b")
    chart = read(mermaid(run.run.saga, run.drive.state))
    assert list(chart.boxes.values())[1:] == ["✗ item 0", "✗ item 1"]
    assert chart.edges == {("s", "✓ pure listed"), ("✓ pure listed", "✓ a"), ("✓ a", "✗ b"),
                           ("✗ b", "end")}  # fmt: skip
