"""Two moments of a fake service, compared line by line."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from orchestrator.testing.snapshot import moved, snapshot, told


@dataclass
class Fake:
    """A service with a bit of everything."""

    balance: int = 0
    by_key: dict[str, Any] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    me: Any = None

    def __post_init__(self) -> None:
        self.me = self


def changes(before: Fake, after: Fake, *ignore: str) -> tuple[str, ...]:
    return told(moved(snapshot({"Fake": before}, ignore), snapshot({"Fake": after}, ignore)))


def test_the_same_is_no_difference_whatever_object_it_is() -> None:
    assert changes(Fake(1, {"k": {"a": 1}}, [1]), Fake(1, {"k": {"a": 1}}, [1])) == ()


def test_each_place_that_changed_is_named() -> None:
    assert changes(Fake(), Fake(7, {"k": [3]})) == (
        "Fake.balance: 0 → 7",
        "Fake.by_key: 0 entries → 1 entries",
        "Fake.by_key['k']: (nothing) → 1 items",
        "Fake.by_key['k'][0]: (nothing) → 3",
    )


def test_the_order_in_a_list_is_no_difference() -> None:
    assert changes(Fake(log=[1, 2, {"a": 3}]), Fake(log=[{"a": 3}, 2, 1])) == ()
    assert changes(Fake(log=[1, 2]), Fake(log=[1, 1])) != ()


def test_names_that_are_ignored_are_left_out_at_any_depth() -> None:
    inner = Fake(balance=3)
    assert changes(Fake(by_key={"k": Fake()}), Fake(by_key={"k": inner}), "balance") == ()
