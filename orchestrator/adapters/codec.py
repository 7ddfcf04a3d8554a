"""Values ⇄ JSON text by pydantic, checked by reading it back; events ⇄ rows (codec_events)."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaError

from orchestrator.adapters.codec_events import read_event, write_event
from orchestrator.adapters.codec_forms import Form, form_of, spell
from orchestrator.adapters.codec_values import canonical, differing, infinite, unwritable
from orchestrator.domain.events import Event, Json
from orchestrator.errors import InvalidInputError, PayloadTooLargeError, UnrecordableError
from orchestrator.ports import EventRow

PAYLOAD_LIMIT = 1024 * 1024
_PROBLEMS = 50
_LINE = 1_000
_TOO_DEEP = ("recursion limit", "serialization depth", "Circular reference")
_ADVICE = "annotate what is meant, and return JSON values or a pydantic model"


class JsonCodec:
    """JSON only: nothing is pickled, and no class is ever looked up by a name in the data."""

    def __init__(self, limit: int = PAYLOAD_LIMIT) -> None:
        self._limit = limit

    def encode(self, value: Any, annotation: Any) -> Json:
        """JSON text that was read back once; equal values give equal text.

        Raises UnrecordableError for what JSON cannot hold, PayloadTooLargeError over the limit.
        """
        form = self._form(annotation)
        try:
            written = self._written(value, form)
        except (UnrecordableError, InvalidInputError):
            raise
        except Exception as error:
            # Whatever it is: validators and serializers are user code.
            raise UnrecordableError(
                f"a {type(value).__name__} cannot be recorded as {spell(annotation)}: "
                f"{_why(value, error)}; {_ADVICE}"
            ) from error
        return Json(written.decode())

    def decode(self, text: Json, annotation: Any) -> Any:
        """The value in *text*, validated. InvalidInputError has a line for each problem."""
        try:
            return form_of(annotation).read(text, by_alias=True, by_name=True)
        except Exception as error:
            problems = _problems(error)
            raise InvalidInputError(
                f"not a valid {spell(annotation)}: {'; '.join(problems)}", problems
            ) from error

    def encode_event(self, event: Event) -> tuple[str, str, int, str]:
        """type, node, attempt, data: the columns of a row, payloads embedded as they are."""
        return write_event(event)

    def decode_event(self, row: EventRow) -> Event:
        """The fact in *row*. HistoryError for a type or a form that this code does not know."""
        return read_event(row)

    def _form(self, annotation: Any) -> Form:
        try:
            return form_of(annotation)
        except (PydanticUserError, SchemaError) as error:
            raise UnrecordableError(
                f"{spell(annotation)} is not a type that can be written as JSON; "
                "use JSON types, dataclasses or pydantic models"
            ) from error

    def _written(self, value: Any, form: Form) -> bytes:
        if form.plain and (quick := _plain(value, form)) is not None:
            return self._within(quick)
        written = self._within(form.write(value))
        again = form.read(written, by_alias=True, by_name=True)
        if form.loose:
            return self._settled(value, form, written)
        if type(again) is not type(value):
            form.write_strictly(value)
        if form.write(again) != written:
            form.write_strictly(value)
            raise _changes(value, form)
        _check_rest(value, again, form, written)
        return written

    def _settled(self, value: Any, form: Form, written: bytes) -> bytes:
        """The one text for a value whose parts may come in any order, or be of any type."""
        settled = self._within(canonical(written, value))
        again = form.read(settled, by_alias=True, by_name=True)
        if canonical(form.write(again), again) != settled:
            form.write_strictly(value)
            raise _changes(value, form)
        _check_rest(value, again, form, settled)
        if (place := differing(value, again)) is not None:
            raise _changes(value, form, place)
        return settled

    def _within(self, written: bytes) -> bytes:
        if len(written) > self._limit:
            raise PayloadTooLargeError(
                f"a payload of {len(written):,} bytes is over the limit of {self._limit:,}; "
                "keep large data elsewhere and record where it is"
            )
        return written


def _plain(value: Any, form: Form) -> bytes | None:
    """The text of a value made of JSON types alone; None where more care is needed."""
    try:
        written = msgspec.json.encode(value, order="sorted")
        again = form.read(written, by_alias=True, by_name=True)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        # Not an end: pydantic writes more than these, or says better what is wrong.
        return None
    return written if again == value else None


def _check_rest(value: Any, again: Any, form: Form, written: bytes) -> None:
    """What equal text does not show: numbers that became null, secrets that became stars."""
    if form.may_hold_floats and b"null" in written and (place := infinite(value)) is not None:
        raise UnrecordableError(
            f"{place} is not a finite number, which JSON cannot hold; record None or text instead"
        )
    if b"**********" in written and again != value:
        raise UnrecordableError(
            f"a {type(value).__name__} holds a secret, which is masked when it is written; "
            "record where the secret is kept, not the secret"
        )
    if b"NaN" in written or b"Infinity" in written:
        # Raises for the words themselves; inside of text they are as good as any.
        msgspec.json.decode(written)


def _changes(value: Any, form: Form, place: str = "") -> UnrecordableError:
    where = f" at {place}" if place else ""
    return UnrecordableError(
        f"a {type(value).__name__} changes{where} when it is recorded as {form.name} and read "
        f"back; {_ADVICE}"
    )


def _why(value: Any, error: Exception) -> str:
    if isinstance(error, RecursionError) or any(word in str(error) for word in _TOO_DEEP):
        return "it is nested too deeply (about 200 levels can be recorded) or holds itself"
    if isinstance(error, ValidationError):
        return f"what was written cannot be read back: {'; '.join(_problems(error))}"
    if (found := unwritable(value)) is not None:
        return found
    if isinstance(error, PydanticSerializationError):
        return "; ".join(line.strip() for line in str(error).splitlines()[:3])
    return f"{type(error).__name__}: {error}"


def _problems(error: Exception) -> list[str]:
    if not isinstance(error, ValidationError):
        return [f"input: {type(error).__name__}: {error}"]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, one['loc'])) or 'input'}: {one['msg']}" for one in found]
    lines = [line if len(line) <= _LINE else f"{line[:_LINE]}…" for line in lines]
    if len(lines) > _PROBLEMS:
        lines[_PROBLEMS:] = [f"and {len(lines) - _PROBLEMS} more"]
    return lines
