"""The run in which nothing happens: others that end as it does must leave the same behind."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.testing.choices import Path
from orchestrator.testing.findings import Broken, Told
from orchestrator.testing.leftovers import measures
from orchestrator.testing.snapshot import Snapshot, moved, told


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: the instances with their statuses, what stands in them, and the fakes."""

    statuses: tuple[tuple[str, str], ...]
    standing: tuple[frozenset[str], ...]
    measures: Snapshot


def end_of(instances: list[Told], fakes: Snapshot) -> End:
    """The end of a run, from its histories and its fakes."""
    return End(
        tuple((one.row.name, str(one.row.status)) for one in instances),
        tuple(frozenset(one.standing) for one in instances),
        measures(fakes),
    )


def differs(end: End, plain: End, path: Path, point: str) -> Broken | None:
    """What is other than in the plain run although it must not be; None when all is as it was."""
    if path.count("trouble"):
        return None
    died = bool(path.count("death"))
    if not died and end.statuses[:1] != plain.statuses[:1]:
        [(name, status)] = end.statuses[:1]
        return Broken(
            f"the end depends on which of two parallel parts comes first: saga {name} is {status}, "
            f"and in the plain order it is {plain.statuses[0][1]}",
            mend="parallel parts must not need what their siblings do: put them one after the other",
        )
    left = moved(plain.measures, end.measures)
    if (end.statuses, end.standing) != (plain.statuses, plain.standing) or not left:
        return None
    if died:
        return Broken(
            f"the process died {point}, the saga came to the same end, and left something else behind "
            "than without that death",
            ("without it → with it", *told(left)),
            "one effect in each step, or a key for each: ctx.idempotency_key with a suffix; "
            'what only counts calls is left out by ignore=("its name",)',
        )
    return Broken(
        "what is left behind depends on which of two parallel parts comes first",
        ("in the plain order → in this one", *told(left)),
        "parallel parts must not use what their siblings do: put them one after the other",
    )
