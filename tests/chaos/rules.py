"""Rules over the evidence: each with its number in the design, each counts what it looked at."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.evidence import Evidence


@dataclass
class Finding:
    """What one rule found."""

    rule: str
    says: str
    checked: int = 0
    violations: list[str] = field(default_factory=list)


Check = Callable[[Evidence], Iterator[str | None]]
"""Yields once for everything that it looks at: None when all is well, else what is wrong."""

PARTS = ("api", "effects", "end", "feed", "log")
RULES: dict[str, tuple[str, Check]] = {}


def rule(number: str) -> Callable[[Check], Check]:
    """Enter a check under a number; its docstring is what it says."""

    def enter(check: Check) -> Check:
        assert number not in RULES
        RULES[number] = (check.__doc__ or "", check)
        return check

    return enter


def judge(evidence: Evidence) -> list[Finding]:
    """All rules on all evidence."""
    for part in PARTS:
        importlib.import_module(f"tests.chaos.rules_{part}")
    findings = []
    for number, (says, check) in sorted(RULES.items(), key=lambda one: int(one[0][1:])):
        finding = Finding(number, says)
        for problem in check(evidence):
            finding.checked += 1
            if problem is not None:
                finding.violations.append(problem)
        findings.append(finding)
    return findings
