"""Which of the instances that were claimed in vain may run side by side.

An instance that was claimed again and again without one new event may be what ends its workers,
or may only have been beside it. So those with as many vain claims are taken fewer and fewer
together: the others come through, and the one that does it is found alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.ports import SUSPECT, Claim

_TOGETHER = 64
_SHARE = 4


def times_begun(claims: int) -> int:
    """How often an instance with *claims* was begun: the claim that makes it a suspect counts twice.

    (Once because it was claimed, and once more because it was begun.)
    """
    return claims if claims <= SUSPECT else claims - 1


def room_beside(claims: int) -> int:
    """How many suspects may run in one worker when one of them was claimed so often."""
    together: int = _TOGETHER // _SHARE ** max(claims - SUSPECT, 0)
    return max(together, 1)


def set_apart(
    claims: Sequence[Claim], carried: Iterable[int], limit: int
) -> tuple[list[Claim], list[Claim]]:
    """What is to be carried beside suspects *carried* (their claims), and what is to be put back.

    Beyond *limit* claims an instance is not run any more but parked, which harms nobody.
    """
    company = list(carried)
    suspects = [claim for claim in claims if SUSPECT <= claim.claims <= limit]
    kept = [claim for claim in claims if not SUSPECT <= claim.claims <= limit]
    back = []
    for claim in sorted(suspects, key=lambda claim: claim.claims):
        worst = max(claim.claims, *company, 0)
        if len(company) < room_beside(worst):
            company.append(claim.claims)
            kept.append(claim)
        else:
            back.append(claim)
    return kept, back
