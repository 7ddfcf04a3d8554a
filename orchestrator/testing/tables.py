"""Small aligned tables, in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_CELL = 60


def table(head: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "  ") -> str:
    """The rows below their heads, each column as wide as it must be."""
    cells = [[str(cell) for cell in head], *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"{indent}{line.rstrip()}" for line in lines)


def indented(text: str, indent: str = "  ") -> str:
    """Each line of *text* moved to the right."""
    return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())


def _one_line(cell: object) -> str:
    text = " ".join(str(cell).split())
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
