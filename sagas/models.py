"""Language models: what a client must do, how its calls are guarded by tier, and a client without network."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from orchestrator import Primitive, Step, WorkflowContext

A = TypeVar("A")
B = TypeVar("B")

PATIENCE = timedelta(seconds=5)

Tier = Literal["small", "large"]
Role = Literal["intent", "plan", "safety", "report"]

INSTRUCTIONS: dict[Role, str] = {
    "intent": "Answer with a JSON list of the separate wishes in what the user says.",
    "plan": 'Answer with a JSON list of tasks for these wishes: {"tool": "note", "text"}, '
    '{"tool": "reminder", "due": "HH:MM", "text"} or {"tool": "mail", "to", "text"}.',
    "safety": 'Answer with {"safe": true} or {"safe": false, "why": "..."} for this plan.',
    "report": "Tell the user in one sentence what was done.",
}
"""What a client says to its model before it hands over the text."""


class Answer(NamedTuple):
    """What a model said, and what that cost, in cents."""

    text: str
    cents: float


@runtime_checkable
class ModelClient(Protocol):
    """Whoever can ask a model."""

    async def complete(self, tier: Tier, role: Role, text: str, *, key: str) -> Answer:
        """The answer of a model of *tier* to *text*. *key* is the same on every attempt."""
        ...


async def think(tier: Tier, role: Role, text: str, ctx: WorkflowContext) -> str:
    """Ask a model, and put the price on the bill."""
    client = ctx.use(ModelClient)  # type: ignore[type-abstract]  # a resource goes by its protocol
    answer = await client.complete(tier, role, text, key=ctx.idempotency_key)
    ctx.cost(answer.cents)
    return answer.text


def small(thought: Step[A, B]) -> Primitive[A, B]:
    """A call of the small model. Where it is down, nobody waits for it: there is a large one."""
    call = _free_of_effects(thought).retry(2, initial=0.5).rate_limit("small-model", 200)
    return call.circuit("small-model", failures=5, reset=30).timeout(PATIENCE)


def large(thought: Step[A, B]) -> Primitive[A, B]:
    """A call of the large model: fewer of them, and where it is down it is waited for."""
    call = _free_of_effects(thought).retry(4).rate_limit("large-model", 50)
    return call.circuit("large-model", failures=5, reset=30)


def _free_of_effects(thought: Step[A, B]) -> Step[A, B]:
    return thought.without_undo("asking a model changes nothing")


class LocalModels:
    """Models that are simple rules: always the same answer, at once, and for nothing but the price.

    The small one understands one wish at a time and says so when there are more; the large one
    understands several, joined by "and then".
    """

    async def complete(self, tier: Tier, role: Role, text: str, *, key: str) -> Answer:
        """See ModelClient."""
        return Answer(_RULES[role](tier, text), _CENTS[tier])


_CENTS: dict[Tier, float] = {"small": 0.25, "large": 2.0}
_WISHES: dict[str, re.Pattern[str]] = {
    "note": re.compile(r"note (?P<text>.+)"),
    "reminder": re.compile(r"remind me at (?P<due>\d\d:\d\d) to (?P<text>.+)"),
    "mail": re.compile(r"mail (?P<to>\S+@\S+) about (?P<text>.+)"),
}
_FORBIDDEN = ("password", "delete everything", "all customers")


def _intent(tier: Tier, text: str) -> str:
    wishes = [wish.strip() for wish in text.lower().split(" and then ")]
    if tier == "small" and len(wishes) > 1:
        return "I am not sure what you mean."
    return json.dumps(wishes)


def _plan(tier: Tier, text: str) -> str:
    tasks: list[dict[str, Any]] = []
    for wish in json.loads(text):
        found = [(tool, form.fullmatch(wish)) for tool, form in _WISHES.items()]
        tasks += [{"tool": tool, **match.groupdict()} for tool, match in found if match]
    return json.dumps(tasks)


def _safety(tier: Tier, text: str) -> str:
    bad = next((word for word in _FORBIDDEN if word in text), "")
    return json.dumps({"safe": not bad, "why": f'it says "{bad}"' if bad else ""})


def _report(tier: Tier, text: str) -> str:
    return f"Done: {', '.join(json.loads(text))}."


_RULES = {"intent": _intent, "plan": _plan, "safety": _safety, "report": _report}
