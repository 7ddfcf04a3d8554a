"""Small aligned tables, in plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

_CELL = 60
_EDGE = 4


def table(head: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "  ") -> str:
    """The rows below their heads, each column as wide as it must be."""
    cells = [[str(cell) for cell in head], *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"{indent}{line.rstrip()}" for line in lines)


def shortened(rows: Sequence[T], alike: Callable[[T], object], more: Callable[[int], T]) -> list[T]:
    """The rows, without the middle of those that are alike and too many: *more* says how many."""
    total = Counter(alike(row) for row in rows)
    seen: Counter[object] = Counter()
    shown: list[T] = []
    left_out = 0
    for row in rows:
        what = alike(row)
        seen[what] += 1
        if _EDGE < seen[what] <= total[what] - _EDGE:
            left_out += 1
            continue
        if left_out:
            shown.append(more(left_out))
            left_out = 0
        shown.append(row)
    return shown


def indented(text: str, indent: str = "  ") -> str:
    """Each line of *text* moved to the right."""
    return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())


def _one_line(cell: object) -> str:
    text = " ".join(str(cell).split())
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
