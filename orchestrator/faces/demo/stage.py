"""The demo as people see it while it runs: lines of text over a progress bar."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.domain.events import Status


class Stage:
    """Shows progress on *console*; a file or a pipe gets the lines and no bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._came = self._progress.add_task("came in", total=None, detail="")
        self._ended = self._progress.add_task("ended", total=None, detail="")
        self._compensated = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def opened(self, total: int) -> None:
        """*total* orders are about to come in."""
        for task in (self._came, self._ended):
            self._progress.update(task, total=total)

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def started(self, count: int) -> None:
        """*count* more orders came in."""
        self._progress.advance(self._came, count)

    def ended(self, status: Status) -> None:
        """One more order came to its end."""
        self._compensated += status is Status.COMPENSATED
        detail = f"{self._compensated} compensated" if self._compensated else ""
        self._progress.update(self._ended, advance=1, detail=detail)
