"""The codec: every event comes back, every bad value is refused with a reason."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, get_type_hints
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field, field_validator

from orchestrator.adapters.codec import PAYLOAD_LIMIT, JsonCodec
from orchestrator.domain import events as ev
from orchestrator.domain.events import EVENT_TYPES, Event, Failure, Json
from orchestrator.errors import (
    HistoryError,
    InvalidInputError,
    PayloadTooLargeError,
    UnrecordableError,
)
from orchestrator.ports import EventRow

codec = JsonCodec()
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
small = st.integers(0, 2**31 - 1)
failures = st.recursive(
    st.builds(Failure, texts, texts),
    lambda inner: st.builds(
        Failure,
        texts,
        texts,
        st.lists(texts, max_size=3).map(tuple),
        st.booleans(),
        st.none() | st.floats(0, 1e9),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=4,
)
payloads = plain.map(lambda value: Json(json.dumps(value)))
times = st.datetimes(
    datetime(1970, 1, 2), datetime(9999, 12, 30),  # noqa: DTZ001 - the zone is drawn below
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)  # fmt: skip
by_hint: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: small,
    bool: st.booleans(),
    float: st.floats(0, 1e9),
    Json: payloads,
    Json | None: st.none() | payloads,
    Failure: failures,
    Failure | None: st.none() | failures,
    tuple[str, ...]: st.lists(texts, max_size=3).map(tuple),
    datetime: times,
    datetime | None: st.none() | times,
    Mapping[str, object]: st.dictionaries(texts, plain, max_size=3),
}


def some(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Events of one kind, each field of any value its type allows."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: by_hint[hint] for name, hint in hints.items()})


def row(type_: str, node: str, attempt: int, data: str) -> EventRow:
    return EventRow("0190-test", 7, type_, node, attempt, 1, data, "{}", AT, b"")


class Price(BaseModel):
    cents: int
    note: str | None = None
    rate: float | None = None


@dataclasses.dataclass
class Spot:
    x: int
    weight: float | None = None


@dataclasses.dataclass(slots=True)
class SlottedSpot:
    weight: float | None = None


class Colour(enum.Enum):
    RED = 1


# ---------------------------------------------------------------------------- events


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES.keys())
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(some(kind))
    columns = codec.encode_event(event)
    json.loads(columns[3])
    assert codec.decode_event(row(*columns)) == event


@given(plain, st.sampled_from([None, 1, 3]))
def test_a_payload_stands_in_its_row_byte_for_byte(value: Any, indent: int | None) -> None:
    text = Json(json.dumps(value, indent=indent))
    type_, node, attempt, data = codec.encode_event(ev.StepSucceeded("order/1", "hold", 2, text))
    assert (type_, node, attempt) == ("StepSucceeded", "order/1", 2)
    assert f'"output":{text}' in data
    found = codec.decode_event(row(type_, node, attempt, data))
    assert isinstance(found, ev.StepSucceeded)
    assert found.output == text


def test_numbers_in_a_payload_are_not_rewritten() -> None:
    text = Json('{"a":1.0e5,"a2":1.10,"b":"\\u0000\\/","c":12345678901234567890123,"a":2}')
    columns = codec.encode_event(ev.SagaCompleted(text))
    assert columns == ("SagaCompleted", "", 0, f'{{"output":{text}}}')
    assert codec.decode_event(row(*columns)) == ev.SagaCompleted(text)


def test_times_are_written_in_utc() -> None:
    there = AT.astimezone(timezone(timedelta(hours=-8)))
    data = codec.encode_event(ev.DeadlineSet("order/0", there))[3]
    assert data == '{"due_at":"2026-03-01T12:00:00+00:00"}'


def test_what_is_empty_is_left_out() -> None:
    event = ev.StepFailed("order/0", "ship", 1, Failure("Oops", "why"))
    assert codec.encode_event(event)[3] == (
        '{"step":"ship","failure":{"type":"Oops","message":"why"}}'
    )
    assert codec.encode_event(ev.CompensationStarted("why"))[3] == '{"reason":"why"}'


def test_half_a_surrogate_pair_in_an_error_is_spelled_out() -> None:
    failure = Failure("Oops", "bad \ud800 name \udfff", causes=(Failure("Inner", "\udc80 é"),))
    columns = codec.encode_event(ev.StepFailed("order/0", "ship", 1, failure))
    assert columns[3].encode()
    found = codec.decode_event(row(*columns))
    assert isinstance(found, ev.StepFailed)
    assert found.failure.message == "bad \\ud800 name \\udfff"
    assert found.failure.causes[0].message == "\\udc80 é"


def test_fields_of_a_newer_version_are_ignored_and_missing_ones_take_their_defaults() -> None:
    data = '{"step":"ship","failure":{"type":"T","message":"m","colour":"red"},"novelty":[1]}'
    event = codec.decode_event(row("StepFailed", "order/0", 3, data))
    assert event == ev.StepFailed("order/0", "ship", 3, Failure("T", "m"))


def test_an_unknown_event_names_type_saga_and_version() -> None:
    with pytest.raises(HistoryError, match=r"0190-test: event 7 is a 'StepDreamt'"):
        codec.decode_event(row("StepDreamt", "", 0, "{}"))


@pytest.mark.parametrize("data", ["{}", "not json", '{"step":1,"output":2}', "[]", '{"step":"a"}'])
def test_a_row_that_cannot_be_read_is_a_history_error(data: str) -> None:
    with pytest.raises(HistoryError, match=r"0190-test: event 7 \(StepSucceeded\) cannot be read"):
        codec.decode_event(row("StepSucceeded", "order/0", 1, data))


# ---------------------------------------------------------------------------- values


@given(plain)
def test_plain_values_come_back_equal_without_an_annotation(value: Any) -> None:
    text = codec.encode(value, Any)
    assert codec.decode(text, Any) == value
    assert codec.encode(codec.decode(text, Any), Any) == text


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    unit_price: int = Field(alias="unitPrice")

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def doubled(self) -> int:
        return 2 * self.unit_price


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


GOOD = [
    (None, None, "null"),
    (None, Any, "null"),
    (Price(cents=1), Price, '{"cents":1,"note":null,"rate":null}'),
    (Price(cents=1), Any, '{"cents":1,"note":null,"rate":null}'),
    (Spot(1), Spot, '{"x":1,"weight":null}'),
    (Spot(1), Any, '{"weight":null,"x":1}'),
    (Aliased(unitPrice=3), Aliased, '{"unit_price":3}'),
    (Open.model_validate({"b": 1, "a": 2}), Open, '{"a":2,"b":1}'),
    ("\x00", str, '"\\u0000"'),
    ("NaN Infinity", str, '"NaN Infinity"'),
    (5, float, "5.0"),
    (10**400, int, str(10**400)),
    (10**400, Any, str(10**400)),
    ({3, 1, 2}, set[int], "[1,2,3]"),
    ({"b", "a"}, frozenset[str] | set[str], '["a","b"]'),
    ([{2, 1}], list[set[int]], "[[1,2]]"),
    ({"s": {2, 1}}, dict[str, set[int]], '{"s":[1,2]}'),
    ({2: "b", 1: "a"}, dict[int, str], '{"1":"a","2":"b"}'),
    ({"b": 1, "a": 2}, dict[str, int], '{"a":2,"b":1}'),
    (OrderedDict(b=1, a=2), OrderedDict[str, int], '{"b":1,"a":2}'),
    ((1, "a"), tuple[int, str], '[1,"a"]'),
    ((1, "a"), Any, '[1,"a"]'),
    (b"abc", bytes, '"abc"'),
    (Decimal("1.50"), Decimal, '"1.50"'),
    (AT, datetime, '"2026-03-01T12:00:00Z"'),
    (UUID(int=1), UUID, '"00000000-0000-0000-0000-000000000001"'),
    (Colour.RED, Colour, "1"),
    ([1], Annotated[list[int], Field(json_schema_extra={"examples": [[1]]})], "[1]"),
]


@pytest.mark.parametrize(("value", "annotation", "text"), GOOD)
def test_a_good_value_is_written_and_comes_back(value: Any, annotation: Any, text: str) -> None:
    assert codec.encode(value, annotation) == text
    again = codec.decode(Json(text), annotation)
    assert codec.encode(again, annotation) == text


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def in_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


class Secretive(BaseModel):
    password: SecretStr


class Written(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    rate: float


class Rude(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def refuse(cls, name: str) -> str:
        raise RuntimeError(f"never tell me {name}")


BAD = [
    (math.nan, float, "cannot be read back"),
    (math.nan, Any, r"\$ is not a finite number"),
    (-math.inf, Any, r"\$ is not a finite number"),
    ({"a": [1, math.inf]}, Any, r"\$\.a\[1\] is not a finite number"),
    (Price(cents=1, rate=math.nan), Price, r"\$\.rate is not a finite number"),
    (Price(cents=1, rate=math.inf), Any, r"\$\.rate is not a finite number"),
    (Spot(1, math.nan), Spot, r"\$\.weight is not a finite number"),
    (SlottedSpot(math.nan), SlottedSpot, r"\$\.weight is not a finite number"),
    ([SlottedSpot(math.nan)], Any, r"\$\[0\]\.weight is not a finite number"),
    (Written(rate=math.nan), Written, "malformed|cannot be recorded"),
    ("a\ud800", str, "half a surrogate pair"),
    ({"a": ["\udfff"]}, Any, r"\$\.a\[0\] holds half a surrogate pair"),
    ({1, 2}, Any, r"changes at \$"),
    ({"a": {1}}, dict[str, Any], r"changes at \$\.a"),
    (object(), Any, r"\$ is a object, which has no JSON form"),
    ({"a": [1, object()]}, Any, r"\$\.a\[1\] is a object"),
    (object(), object, "has no JSON form"),
    (1, type("Strange", (), {}), "not a type that can be written"),
    (Decimal("1.5"), Any, r"changes at \$"),
    (Decimal("NaN"), Decimal, "cannot be read back"),
    (AT, Any, r"changes at \$"),
    ({"at": AT}, Any, r"changes at \$\.at"),
    (b"abc", Any, r"changes at \$"),
    (b"\xff", bytes, "bytes that are not UTF-8"),
    ({1: "a"}, Any, r"changes at \$"),
    ({"a": {1: "a"}}, Any, r"changes at \$\.a"),
    (Colour.RED, Any, r"changes at \$"),
    (10**5000, int, "number|digits|read back"),
    (nested(100_000), Any, "nested too deeply"),
    (nested(1_000), Any, "nested too deeply"),
    (in_itself(), Any, "nested too deeply"),
    ("a", int, "cannot be read back"),
    ("5", int, "cannot be recorded"),
    (None, int, "cannot be read back"),
    ({"cents": 1, "note": None, "rate": None}, Price, "Expected `Price`"),
    ({"cents": 1}, Price, "Expected `Price`"),
    ({"a": "x"}, dict[str, int], "cannot be read back"),
    ([], dict[str, Any], "cannot be read back"),
    (Price(cents=1).model_copy(update={"cents": "many"}), Price, "cents: "),
    (Secretive(password=SecretStr("hush")), Secretive, "holds a secret"),
    (Secretive(password=SecretStr("hush")), Any, "holds a secret"),
]


@pytest.mark.parametrize(("value", "annotation", "why"), BAD, ids=range(len(BAD)))
def test_a_bad_value_is_refused_with_a_reason(value: Any, annotation: Any, why: str) -> None:
    with pytest.raises(UnrecordableError, match=why) as refused:
        codec.encode(value, annotation)
    assert "hush" not in str(refused.value)
    assert len(str(refused.value)) < 2_000


def test_a_model_whose_own_code_fails_is_unrecordable_and_unreadable() -> None:
    with pytest.raises(UnrecordableError, match="never tell me ann"):
        codec.encode(Rude.model_construct(name="ann"), Rude)
    with pytest.raises(InvalidInputError, match="never tell me ann"):
        codec.decode(Json('{"name":"ann"}'), Rude)


@pytest.mark.parametrize("depth", [1, 100, 190])
def test_ordinary_nesting_is_no_problem(depth: int) -> None:
    assert codec.decode(codec.encode(nested(depth), Any), Any) == nested(depth)


@pytest.mark.parametrize("annotation", [str, Any])
def test_the_limit_is_exact_and_counts_bytes(annotation: Any) -> None:
    fits = "é" * ((PAYLOAD_LIMIT - 2) // 2)
    assert len(codec.encode(fits, annotation).encode()) == PAYLOAD_LIMIT
    with pytest.raises(
        PayloadTooLargeError, match=r"1,048,577 bytes is over the limit of 1,048,576"
    ):
        codec.encode(fits + "a", annotation)
    assert codec.encode(fits[:-1] + "a", annotation)
    with pytest.raises(PayloadTooLargeError, match=r"12 bytes is over the limit of 10"):
        JsonCodec(limit=10).encode(["x" * 8], list[str])


def test_sets_and_dicts_have_one_text_whatever_the_hash_seed() -> None:
    code = (
        "from orchestrator.adapters.codec import JsonCodec\n"
        "from typing import Any\n"
        "words = {str(n): {str(n), 'a', 'b'} for n in range(20)}\n"
        "print(JsonCodec().encode(words, dict[str, set[str]]))\n"
        "print(JsonCodec().encode({frozenset({'x', 'y', 'z'}), frozenset({'a', 'b'})},\n"
        "    set[frozenset[str]]))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1


# ---------------------------------------------------------------------------- reading


def test_a_bad_input_has_a_line_for_each_problem() -> None:
    with pytest.raises(InvalidInputError) as refused:
        codec.decode(Json('{"cents":"x","note":5}'), Price)
    assert [line.split(":")[0] for line in refused.value.problems] == ["cents", "note"]
    assert str(refused.value).startswith("not a valid Price: cents: ")


def test_a_text_that_is_not_json_is_one_problem_of_the_input() -> None:
    with pytest.raises(InvalidInputError) as refused:
        codec.decode(Json("{"), Price)
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].startswith("input: Invalid JSON")


def test_many_problems_are_cut_short() -> None:
    with pytest.raises(InvalidInputError) as refused:
        codec.decode(Json(json.dumps(["x"] * 1_000)), list[int])
    assert len(refused.value.problems) == 51
    assert refused.value.problems[-1] == "and 950 more"


def test_an_alias_and_the_name_are_both_read() -> None:
    assert codec.decode(Json('{"unitPrice":3}'), Aliased).unit_price == 3
    assert codec.decode(Json('{"unit_price":3}'), Aliased).unit_price == 3


def test_a_type_that_pydantic_cannot_read_is_an_invalid_input() -> None:
    with pytest.raises(InvalidInputError, match="Strange"):
        codec.decode(Json("1"), type("Strange", (), {}))
