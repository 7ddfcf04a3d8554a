"""Judges a chaos run from outside: SQL, Kafka and logs, and not one line of the product.

    python -m tests.chaos.checker FOLDER

Writes report.json and report.txt into FOLDER. Exit code 0 when nothing was violated and enough was
injected, 1 when something was violated, 2 when the run is void.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.chaos.counters import count
from tests.chaos.evidence import Evidence, load
from tests.chaos.report import Report, measure, spell
from tests.chaos.rules import judge

CODES = {"passed": 0, "violated": 1, "void": 2}


def check(folder: Path) -> Report:
    """Everything about one run."""
    evidence = load(folder)
    keep(evidence, folder)
    report = measure(evidence, judge(evidence), count(evidence))
    (folder / "report.json").write_text(json.dumps(report, indent=1), "utf-8")
    (folder / "report.txt").write_text(spell(report), "utf-8")
    return report


def keep(evidence: Evidence, folder: Path) -> None:
    """The log and the rows as files: the database is gone when somebody asks what happened."""
    with (folder / "events.jsonl").open("w", encoding="utf-8") as out:
        for events in evidence.by_saga.values():
            for event in events:
                told = {name: getattr(event, name) for name in ("saga", "version", "type", "node")}
                told |= {"attempt": event.attempt, "epoch": event.epoch, "at": str(event.at)}
                out.write(json.dumps({**told, "data": event.fact}) + "\n")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for row in evidence.rows:
            out.write(json.dumps(asdict(row), default=str) + "\n")
    with (folder / "inbox.jsonl").open("w", encoding="utf-8") as out:
        for message in evidence.inbox:
            out.write(json.dumps(asdict(message)) + "\n")


if __name__ == "__main__":
    sys.exit(CODES[check(Path(sys.argv[1]))["verdict"]])
