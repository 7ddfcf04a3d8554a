"""What an item of `each` costs among few and among many, and the fold of a long history."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks import limits
from benchmarks.flows import each_by_fifty, each_in_turn, each_undone
from benchmarks.workloads import working
from orchestrator import Orchestrator, Saga
from orchestrator.adapters.codec import JsonCodec
from orchestrator.domain.evolve import fold

SIZES = (100, 1_000, 10_000)
SAGAS: Mapping[str, tuple[Saga[Sequence[int], Any], int]] = {
    "each_in_turn": (each_in_turn, 1),
    "each_by_fifty": (each_by_fifty, 50),
    "each_by_fifty_undone": (each_undone, 50),
}
"""With how many items are under way at once: they share a commit, so that is the smallest saga."""

_SECONDS = 3
_FOLDED = 5_000
"""Items of the saga that is folded: two events each, the step's and the item's."""

Cost = tuple[float, float]
"""Microseconds by the clock, and of this process's CPU: Postgres and neighbours not counted."""


async def measure(dsn: str, rounds: int) -> dict[str, float]:
    """The median of *rounds*. Each has every saga at every size: a machine's moods change."""
    found: list[dict[str, float]] = []
    async with working(dsn, [saga for saga, _ in SAGAS.values()], 100) as orchestrator:
        for _ in range(rounds):
            figures = {"commit_us": 1e6 / await limits.commits_per_second(dsn, 1)}
            for name in SAGAS:
                figures |= await _costs(orchestrator, name)
            found.append(figures)
    medians = {name: statistics.median(each[name] for each in found) for name in found[0]}
    return medians | await replay(dsn, max(rounds, 5))


async def _costs(orchestrator: Orchestrator, name: str) -> dict[str, float]:
    """What a small saga costs, with one wave of items, and what one more item costs in larger ones.

    So the start, the claim, the end, and what else a saga costs in any case, are in the first
    figure only, as is the first commit of items.
    """
    saga, small = SAGAS[name]
    figures: dict[str, float] = {}
    for size in SIZES:
        all_ = await _pairs(orchestrator, saga, small, size)
        for unit, index in (("us", 0), ("cpu_us", 1)):
            items = [(much[index] - little[index]) / (size - small) for little, much in all_]
            figures[f"{name}_{size}_{unit}"] = statistics.median(items)
            wholes = [little[index] for little, _ in all_]
            figures.setdefault(f"{name}_whole_{unit}", statistics.median(wholes))
    for unit in ("us", "cpu_us"):
        most, least = figures[f"{name}_{SIZES[-1]}_{unit}"], figures[f"{name}_{SIZES[0]}_{unit}"]
        figures[f"{name}_{unit}_ratio"] = most / least
    return figures


async def _pairs(
    orchestrator: Orchestrator, saga: Saga[Sequence[int], Any], small: int, size: int
) -> list[tuple[Cost, Cost]]:
    """A small saga and one of *size* items, in turns, for some seconds, and each once at least."""
    found: list[tuple[Cost, Cost]] = []
    until = time.perf_counter() + _SECONDS
    while not found or time.perf_counter() < until:
        little = await _whole(orchestrator, saga, small)
        found.append((little, await _whole(orchestrator, saga, size)))
    return found


async def _whole(orchestrator: Orchestrator, saga: Saga[Sequence[int], Any], size: int) -> Cost:
    """What a saga of *size* items costs from its start to its end."""
    values = list(range(size))
    wall, cpu = time.perf_counter(), time.process_time()
    handle = await orchestrator.start(saga, values)
    await orchestrator.wait(handle.saga_id, within=300)
    return (time.perf_counter() - wall) * 1e6, (time.process_time() - cpu) * 1e6


async def replay(dsn: str, times: int) -> dict[str, float]:
    """Seconds to read, to decode and to fold one history of about ten thousand events."""
    codec = JsonCodec()
    async with working(dsn, [each_by_fifty], 100) as orchestrator:
        handle = await orchestrator.start(each_by_fifty, list(range(_FOLDED)))
        await handle.result(within=300)
        took: list[tuple[float, float, float]] = []
        rows = await orchestrator.store.events.read(handle.saga_id)
        for _ in range(times):
            began = time.perf_counter()
            rows = await orchestrator.store.events.read(handle.saga_id)
            read = time.perf_counter()
            events = [codec.decode_event(row) for row in rows]
            decoded = time.perf_counter()
            fold(handle.saga_id, events)
            took.append((read - began, decoded - read, time.perf_counter() - decoded))
    names = ("replay_read_s", "replay_decode_s", "replay_fold_s")
    parts = zip(names, map(statistics.median, zip(*took, strict=True)), strict=True)
    return {"replay_events": len(rows), **dict(parts)}


def tables(figures: Mapping[str, float]) -> Iterator[Table]:
    """The figures, each with the CPU of this process in brackets."""
    title = f"each, µs (a commit takes {figures['commit_us']:,.0f})"
    heads = ["smallest, all of it", *(f"one more of {size:,}" for size in SIZES)]
    costs = Table("saga", *heads, f"{SIZES[-1]:,} / {SIZES[0]:,}", title=title)
    for name in SAGAS:
        cells = [
            f"{figures[f'{name}_{size}_us']:,.0f} ({figures[f'{name}_{size}_cpu_us']:,.0f})"
            for size in ("whole", *SIZES)
        ]
        ratio, cpu = figures[f"{name}_us_ratio"], figures[f"{name}_cpu_us_ratio"]
        costs.add_row(name.replace("_", " "), *cells, f"{ratio:.2f} ({cpu:.2f})")
    yield costs
    parts = [figures[f"replay_{part}_s"] for part in ("read", "decode", "fold")]
    replayed = Table("events", "read", "decoded", "folded", "all", title="replay of one saga, s")
    cells = [f"{seconds:.3f}" for seconds in (*parts, sum(parts))]
    replayed.add_row(f"{figures['replay_events']:,.0f}", *cells)
    yield replayed
