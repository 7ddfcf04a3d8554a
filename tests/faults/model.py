"""What a store of instances is, in plain objects: written from the contracts, and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.domain.events import Status
from orchestrator.ports import SUSPECT, Append, MessageKind, Reply

LIVE = frozenset({Status.PENDING, Status.RUNNING, Status.WAITING, Status.COMPENSATING})
ENDED = frozenset({Status.COMPLETED, Status.COMPENSATED, Status.TERMINATED})
REPAIRS = frozenset({"resume", "retry", "skip", "resolve"})

NOW, LATER = "now", "later"


@dataclass
class Instance:
    """One instance as it ought to be."""

    saga_id: str
    input: str
    status: Status = Status.PENDING
    epoch: int = 0
    owner: str | None = None
    due: str | None = NOW
    claims: int = 0
    seen: int = 0
    pivoted: bool = False
    log: list[tuple[int, int]] = field(default_factory=list)
    """Version and epoch of each event."""
    inbox: list[tuple[str, int]] = field(default_factory=list)
    """Kind and number of each message."""
    keys: set[str] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.log)

    @property
    def claimable(self) -> bool:
        return self.owner is None and self.due == NOW

    def shown(self) -> tuple[object, ...]:
        """Everything that can be compared with a row; when an owned one is due means nothing."""
        due = None if self.owner else self.due
        return (
            self.saga_id, str(self.status), self.head, self.epoch, self.owner, due,
            len(self.inbox), self.seen, self.claims, self.pivoted, self.log, self.inbox,
        )  # fmt: skip


@dataclass
class Model:
    """All instances, the keys they were started by, and the workers that are alive."""

    instances: dict[str, Instance] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)

    def start(self, saga_id: str, key: str | None, text: str) -> tuple[str, bool, bool]:
        """The id, whether it was created, whether the input is the same."""
        known = saga_id if saga_id in self.instances else self.keys.get(key or "")
        if known is not None:
            return known, False, known == saga_id or self.instances[known].input == text
        self.instances[saga_id] = Instance(saga_id, text)
        if key is not None:
            self.keys[key] = saga_id
        return saga_id, True, True

    def claim(self, one: Instance, owner: str) -> None:
        """*owner* takes it."""
        assert one.claimable
        assert owner in self.workers
        one.owner, one.epoch = owner, one.epoch + 1
        if one.claims < SUSPECT:
            one.claims += 1

    def reclaim(self, one: Instance, owner: str, epoch: int, *, counts: bool = True) -> bool:
        """Whether *owner* gets it again."""
        if (one.owner, one.epoch) != (owner, epoch):
            return False
        one.epoch += 1
        if counts or one.claims < SUSPECT:
            one.claims += 1
        return True

    def release(self, one: Instance, owner: str, *, due: str, untouched: bool = False) -> None:
        """*owner* gives it back, if it has it."""
        if one.owner == owner:
            one.owner, one.due = None, due
            if untouched and 0 < one.claims < SUSPECT:
                one.claims -= 1

    def retire(self, worker: str) -> list[Instance]:
        """The worker is no more; what it held is free."""
        self.workers.remove(worker)
        freed = [one for one in self.instances.values() if one.owner == worker]
        for one in freed:
            one.owner, one.due = None, NOW
        return freed

    def append(self, append: Append) -> bool:
        """Whether it is written."""
        one = self.instances[append.saga_id]
        if (one.owner, one.epoch, one.head) != (append.owner, append.epoch, append.head):
            return False
        if append.if_inbox and len(one.inbox) > append.inbox_seen:
            return False
        one.log += [(row.version, row.epoch) for row in append.events]
        one.status, one.owner, one.claims = append.status, append.owner_after, 0
        one.due = None if append.due_at is None else LATER
        one.seen = min(max(one.seen, append.inbox_seen), len(one.inbox))
        one.pivoted = one.pivoted or append.pivoted
        return True

    def send(self, one: Instance, kind: str, key: str, number: int) -> Reply:
        """What becomes of a message."""
        if key in one.keys:
            return Reply.DUPLICATE
        reply = self._answer(one, kind)
        if reply is not Reply.ACCEPTED:
            return reply
        one.keys.add(key)
        one.inbox.append((kind, number))
        if one.status in LIVE:
            one.due = NOW
        elif one.status is not Status.STUCK or kind in REPAIRS or kind == "terminate":
            one.status, one.due = Status.WAITING, NOW
        return reply

    def _answer(self, one: Instance, kind: str) -> Reply:
        if one.status in LIVE:
            if kind in REPAIRS or kind == MessageKind.UNDO:
                return Reply.NOT_STUCK
            late = kind == "cancel" and one.pivoted and one.status is not Status.COMPENSATING
            return Reply.TOO_LATE if late else Reply.ACCEPTED
        if one.status is Status.STUCK:
            return Reply.STUCK if kind in ("cancel", "undo") else Reply.ACCEPTED
        free = one.status is Status.COMPLETED and kind == "undo"
        return Reply.ACCEPTED if free else Reply.TOO_LATE

    def check(self) -> None:
        """What holds whatever happened."""
        for one in self.instances.values():
            versions = [version for version, _ in one.log]
            assert versions == list(range(1, len(versions) + 1)), "a gap"
            epochs = [epoch for _, epoch in one.log]
            assert epochs == sorted(epochs), "an old epoch after a new one"
            assert not epochs or epochs[-1] <= one.epoch
            assert one.owner is None or (one.status in LIVE and one.owner in self.workers)
            if one.status in LIVE and one.owner is None and one.due is None:
                assert len(one.inbox) == one.seen, "there is news, and nobody will look"
