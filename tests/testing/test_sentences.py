"""Sentences about sagas: given, when, then."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import Permanent, Saga, Signal, WorkflowContext, sleep, step
from orchestrator.testing import SimulationError, given
from tests.testing.shop import (
    LAMP,
    Held,
    book_parcel,
    hold_stock,
    order,
    services,
    take_payment,
    write_receipt,
)

pytestmark = pytest.mark.filterwarnings("ignore::orchestrator.DefinitionWarning")

verdict = Signal("verdict", str)


@step
async def ask(question: str, ctx: WorkflowContext) -> str:
    return question


asked = Saga("asked", version=1, body=ask >> verdict.wait(within=timedelta(days=2)))
BOTH = {"take_payment", "book_parcel"}


def test_all_goes_well() -> None:
    (
        given(order, LAMP, resources=services)
        .then_runs("hold_stock", BOTH, "write_receipt")
        .then_undoes()
        .ends("completed")
    )


def test_a_failed_step_undoes_those_before_it() -> None:
    (
        given(order, auto=True)
        .when_step_fails("write_receipt")
        .then_undoes(BOTH, "hold_stock")
        .ends("compensated", because="write_receipt is refused")
    )


def test_steps_can_be_named_by_themselves() -> None:
    (
        given(order, LAMP, auto=True)
        .when_step_fails(take_payment, Permanent("no money"), times=1)
        .then_runs(hold_stock, [take_payment, book_parcel])
        .then_undoes(book_parcel, hold_stock)
        .ends("compensated", because="no money")
    )


def test_stubs_give_values_or_are_functions() -> None:
    said = given(
        order,
        LAMP,
        stubs={
            "hold_stock": Held(hold_id="h9", cents=1),
            "write_receipt": lambda parcel, ctx: f"the {parcel}",
        },
        resources=services,
    )
    said.then_returns("the parcel of 9")


def test_a_doubt_is_undone_too() -> None:
    given(order, auto=True).when_step_doubts(write_receipt).then_undoes(
        "write_receipt", BOTH, "hold_stock"
    ).ends("compensated")


def test_a_compensation_that_fails_is_tried_again() -> None:
    (
        given(order, auto=True)
        .when_step_fails(write_receipt)
        .when_compensation_fails(hold_stock, times=3)
        .then_undoes(BOTH, "hold_stock")
        .ends("compensated")
    )


def test_a_compensation_that_can_never_succeed_is_stuck() -> None:
    (
        given(order, auto=True)
        .when_step_fails(write_receipt)
        .when_compensation_fails(hold_stock, Permanent("no key"))
        .ends("stuck", because="no key")
    )


def test_a_crash_changes_nothing() -> None:
    said = given(order, LAMP, resources=services).when_it_crashes_after(take_payment)
    said.ends("completed")
    assert said.outcome.effects(take_payment) == 1


def test_a_signal_ends_the_waiting() -> None:
    (
        given(asked, "may I?")
        .then_waits_for(verdict)
        .when_time_passes(timedelta(days=1))
        .then_waits_for("verdict")
        .when_signal(verdict, "yes")
        .then_returns("yes")
        .ends("completed")
    )


def test_time_passes_and_the_waiting_is_over() -> None:
    given(asked, "may I?").when_time_passes(timedelta(days=3)).ends("compensated")


def test_somebody_cancels() -> None:
    given(asked, "may I?").when_cancelled("never mind").ends("compensated", because="never mind")


def test_somebody_cancels_while_a_step_is_called() -> None:
    saga = Saga("late", 1, sleep(60) >> order.body)
    (
        given(saga, LAMP, auto=True)
        .when_cancelled("never mind", during=hold_stock)
        .then_runs("hold_stock")
        .then_undoes("hold_stock")
        .ends("compensated")
    )


def test_an_input_is_made_up_when_none_is_given() -> None:
    assert given(order, auto=True).outcome.calls(hold_stock)[0].input.sku == "sku"


# ---------------------------------------------------------------------------- when it is not so


def test_a_wrong_sentence_fails_with_what_happened() -> None:
    said = given(order, auto=True).when_step_fails(write_receipt)
    with pytest.raises(AssertionError, match=r"it undoes .*hold_stock; not hold_stock") as caught:
        said.then_undoes("hold_stock")
    assert "history" in str(caught.value)
    with pytest.raises(AssertionError, match="it is compensated, not completed"):
        said.ends("completed")
    with pytest.raises(AssertionError, match="the reason is"):
        said.ends("compensated", because="of the weather")
    with pytest.raises(AssertionError, match="it runs"):
        said.then_runs("hold_stock")
    with pytest.raises(AssertionError, match="waits for no signal, not for verdict"):
        said.then_waits_for(verdict)
    with pytest.raises(AssertionError, match="there is no result"):
        said.then_returns("x")


def test_the_order_of_the_undos_is_part_of_the_sentence() -> None:
    said = given(order, auto=True).when_step_fails(write_receipt)
    with pytest.raises(AssertionError, match="it undoes"):
        said.then_undoes("hold_stock", BOTH)


@pytest.mark.parametrize(
    "say",
    [
        lambda said: said.when_step_fails("take_paiment"),
        lambda said: said.when_step_doubts("take_paiment"),
        lambda said: said.when_compensation_fails("take_paiment"),
        lambda said: said.when_it_crashes_after("take_paiment"),
        lambda said: said.when_cancelled(during="take_paiment"),
    ],
)
def test_a_name_that_no_step_has_is_refused_with_the_nearest(say: object) -> None:
    assert callable(say)
    with pytest.raises(SimulationError, match="did you mean 'take_payment'"):
        say(given(order, auto=True))
