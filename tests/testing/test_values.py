"""Made-up values: simple, always the same, valid; or a clear word about why not."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from orchestrator.testing import SimulationError
from orchestrator.testing.values import value_of


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


Cents = NewType("Cents", int)


class Inner(BaseModel):
    name: str = Field(min_length=10)
    cents: int = Field(gt=100, le=1_000)
    rate: float = Field(lt=0.5)
    nick: str = "as it is"
    alias: str = Field(alias="otherName")


class Outer(BaseModel, frozen=True, extra="forbid"):
    inner: Inner
    many: list[Inner]
    by_name: dict[str, Inner]
    maybe: Inner | None
    colour: Colour


@dataclass
class Plain:
    number: int
    when: datetime
    items: list[str] = field(default_factory=list)


class Pair(NamedTuple):
    left: int
    right: str


class Loose(TypedDict):
    cents: Cents


class Endless(BaseModel):
    next: Endless


class Picky(BaseModel):
    email: str = Field(pattern=r"^.+@.+$")


@pytest.mark.parametrize(
    "annotation",
    [
        None, bool, int, float, str, bytes, Decimal, UUID, datetime, date, timedelta,
        Colour, Cents, Literal["b", "a"], int | None, list[int], tuple[int, str], tuple[int, ...],
        set[int], dict[str, int], Mapping[str, int], Sequence[str], Any,
        Annotated[int, Field(ge=7)], Inner, Outer, Plain, Pair, Loose,
    ],
)  # fmt: skip
def test_a_made_up_value_is_valid_and_always_the_same(annotation: Any) -> None:
    value = value_of(annotation)
    TypeAdapter(annotation).validate_python(value)
    assert value == value_of(annotation)


def test_texts_are_called_like_their_fields() -> None:
    class Payment(BaseModel):
        payment_id: str

    assert value_of(Payment).payment_id == "payment_id"


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (Endless, "without end"),
        (Picky, "Picky refuses"),
        (complex.__add__, "says too little"),
    ],
)
def test_what_cannot_be_made_up_is_refused_with_the_reason(annotation: Any, why: str) -> None:
    with pytest.raises(SimulationError, match=why):
        value_of(annotation)
