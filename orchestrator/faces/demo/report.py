"""What a demo ends with: the figures, as a page for people or as one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.domain.events import Status
from orchestrator.faces.demo.shop import Takeover

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Relayed:
    """What went to the broker."""

    broker: str
    published: int
    lag: int


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one run. `problems` is empty when every claim holds."""

    run: str
    seed: int
    database: str
    seconds: float
    statuses: Mapping[Status, int]
    reasons: Mapping[str, int]
    takeover: Takeover | None
    events: int
    example: str | None
    picture: tuple[str, ...]
    relayed: Relayed | None
    problems: tuple[str, ...]

    @property
    def orders(self) -> int:
        return sum(self.statuses.values())

    @property
    def unsettled(self) -> int:
        """Orders that neither completed nor were compensated."""
        settled = (Status.COMPLETED, Status.COMPENSATED)
        return sum(n for status, n in self.statuses.items() if status not in settled)

    @property
    def ok(self) -> bool:
        return not self.problems


def as_json(report: Report) -> dict[str, Any]:
    """The report as one object; times in seconds."""
    takeover, relayed = report.takeover, report.relayed
    return {
        "ok": report.ok,
        "run": report.run,
        "seed": report.seed,
        "database": report.database,
        "seconds": round(report.seconds, 3),
        "orders": report.orders,
        "completed": report.statuses.get(Status.COMPLETED, 0),
        "compensated": report.statuses.get(Status.COMPENSATED, 0),
        "stuck": report.unsettled,
        "reasons": dict(report.reasons),
        "takeover": takeover
        and {
            "killed": takeover.victim,
            "pid": takeover.pid,
            "orders": len(takeover.orders),
            "first_seconds": round(takeover.first, 3),
            "last_seconds": round(takeover.last, 3),
            "example": takeover.orders[0],
        },
        "books": {"balanced": report.ok, "problems": list(report.problems)},
        "chains": {"sagas": report.orders, "events": report.events},
        "relay": relayed
        and {"broker": relayed.broker, "published": relayed.published, "lag": relayed.lag},
        "example": report.example,
    }


def show_report(report: Report, console: Console) -> None:
    """The page that `saga demo` ends with."""
    from orchestrator.faces.cli.render import clean

    console.print()
    console.print(_figures(report))
    if report.example is not None:
        console.print(
            f"\n[bold]One order that was taken back[/bold], in reverse: saga {report.example}"
        )
        for line in report.picture:
            console.print(f"  {clean(line)}", highlight=False, soft_wrap=True)
    for problem in report.problems[:_SHOWN]:
        console.print(f"[red]✗[/red] {clean(problem)}")
    if len(report.problems) > _SHOWN:
        console.print(f"[red]✗[/red] and {len(report.problems) - _SHOWN} more")
    console.print("\n[bold]What to try next[/bold]")
    for command, meaning in _next(report):
        console.print(f"  {command:<62} {meaning}", highlight=False, soft_wrap=True)


def _figures(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", justify="right")
    table.add_column()
    for name, value in _lines(report):
        table.add_row(name, value)
    return table


def _lines(report: Report) -> Iterable[tuple[str, str]]:
    """A name and a value for each figure."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.items())
    yield "completed", str(report.statuses.get(Status.COMPLETED, 0))
    yield (
        "compensated",
        f"{report.statuses.get(Status.COMPENSATED, 0)} ({escape(reasons) or 'none'})",
    )
    yield "stuck", str(report.unsettled)
    yield "in", f"{report.seconds:.1f} s; orders came in at a bounded rate, so that you could watch"
    if (takeover := report.takeover) is None:
        yield "kill -9", "no order was in the hands of a killed worker"
    else:
        yield (
            "kill -9",
            f"worker {takeover.victim} with {len(takeover.orders)} orders in hand; another went on "
            f"with the first after {takeover.first:.2f} s, with the last after {takeover.last:.2f} s",
        )
    if report.ok:
        yield "books", "balance: stock, money, parcels and receipts agree with the event log"
        yield "log", f"{report.orders} hash chains of {report.events} events verify"
    else:
        yield "books", f"[red]{len(report.problems)} things do not agree[/red], see below"
    if (relayed := report.relayed) is None:
        yield (
            "kafka",
            "not configured: set SAGA_KAFKA_BOOTSTRAP_SERVERS, and the events go there too",
        )
    else:
        yield (
            "kafka",
            f"{relayed.published} events published to {relayed.broker}, lag {relayed.lag}",
        )


def _next(report: Report) -> Iterable[tuple[str, str]]:
    """Commands that work as they stand here, and what they answer."""
    yield "saga list --status compensated", "which orders were taken back"
    if report.example is not None:
        short = report.example
        yield f"saga show {short}", "where one stands, as a tree"
        yield f"saga history {short}", "everything that happened to it"
    if report.takeover is not None:
        taken = report.takeover.orders[0]
        yield f"saga history {taken} --json", "one that changed hands: look at the epochs"
    yield "saga verify", "check every hash chain"
    yield "saga demo --keep", "the same orders again: nothing happens twice"
