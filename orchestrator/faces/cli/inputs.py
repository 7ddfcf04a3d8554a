"""What `saga start --input` takes: one JSON text, or JSON Lines, from the line, a file or a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import InvalidInputError
from orchestrator.runtime.service import Order

Read = Callable[[str], Order[object]]


def orders(given: str, read: Read) -> tuple[list[Order[object]], bool]:
    """Every order in *given*, checked, and whether it is JSON Lines.

    Raises InvalidInputError with the number of the first line that is not valid.
    """
    if given != "-" and not given.startswith("@"):
        return [read(given)], False
    text = _text(given)
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InvalidInputError(f"--input {given}: there is nothing in it")
    if not given.endswith((".jsonl", ".ndjson")) and (len(lines) == 1 or _is_json(text)):
        return [read(text)], False
    return [_numbered(number, line, read) for number, line in lines], True


def text_in(given: str) -> str:
    """One text, from the line itself, a file (`@`) or standard input (`-`)."""
    return _text(given) if given == "-" or given.startswith("@") else given


def key_in(text: str, field: str) -> str:
    """The business key that *field* of the input holds."""
    value = json.loads(text)
    found = value.get(field) if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise InvalidInputError(f"--key-field: there is no field {field!r} that can be a key")
    return str(found)


def _text(given: str) -> str:
    try:
        data = sys.stdin.buffer.read() if given == "-" else Path(given[1:]).read_bytes()
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{given}: {error}") from error


def _is_json(text: str) -> bool:
    """Whether the lines are one text, and not a text each."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _numbered(number: int, line: str, read: Read) -> Order[object]:
    try:
        return read(line)
    except InvalidInputError as error:
        told = f"line {number} is not valid; nothing was stored"
        raise InvalidInputError(told, error.problems or (str(error),)) from error
