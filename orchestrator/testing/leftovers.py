"""What an undo left behind of what its step did, as far as the fakes show it beyond doubt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestrator.testing.journal import Call
from orchestrator.testing.snapshot import Moved, Snapshot, told

_COUNT = re.compile(r"-?\d+ (entries|items)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?|Decimal\('.*'\)")
_ENTRY = re.compile(r"[^\[]*\[.*?\]")


def left_behind(call: Call, undos: Sequence[Call], final: Snapshot) -> tuple[str, ...]:
    """What *call* changed, *undos* passed over, and stands as it was left by the call.

    Not everything that stays is forgotten: answers that a service keeps by key, its log, its next
    number. So only three things count: a value that was there before and was not put back; one
    entry of several when others of them were taken back; a whole service when another one was.
    """
    touched = {place for undo in undos for place in undo.moved}
    kept: Moved = {
        place: change
        for place, change in call.moved.items()
        if place not in touched and final.get(place) == change[1]
    }
    found = {
        *_not_put_back(kept, final),
        *_half_of_the_entries(call.moved, kept, touched),
        *_whole_services(call.moved, kept, touched),
    }
    return told({place: change for place, change in kept.items() if place in found})


def _not_put_back(kept: Moved, final: Snapshot) -> Iterator[str]:
    for place, (old, new) in kept.items():
        in_bag = _COUNT.fullmatch(final.get(place.rpartition("[")[0], "")) and place.endswith("]")
        if old is None or in_bag or _COUNT.fullmatch(old) or _counts_up(old, new):
            continue
        yield place


def _counts_up(old: str, new: str | None) -> bool:
    """One more: the next number of something, most likely."""
    return new is not None and old.isdigit() and new.isdigit() and int(new) == int(old) + 1


def _half_of_the_entries(moved: Moved, kept: Moved, touched: set[str]) -> Iterator[str]:
    """Entries that were made beside others in the same place, of which some were taken back."""
    handled = {entry for place in touched if (entry := _entry(place))}
    made = {entry for place in moved if (entry := _entry(place)) and moved[place][0] is None}
    halved = {entry.partition("[")[0] for entry in made & handled}
    for place in kept:
        entry = _entry(place)
        if entry in made - handled and entry.partition("[")[0] in halved:
            yield place


def _whole_services(moved: Moved, kept: Moved, touched: set[str]) -> Iterator[str]:
    """All that was done to one service, when something was taken back at another one."""
    handled = {_service(place) for place in touched}
    if handled & {_service(place) for place in moved}:
        yield from (place for place in kept if _service(place) not in handled)


def _entry(place: str) -> str:
    found = _ENTRY.match(place)
    return found.group() if found else ""


def _service(place: str) -> str:
    return re.split(r"[.\[]", place, maxsplit=1)[0]


def measures(fakes: Snapshot) -> Snapshot:
    """Numbers that belong to no single key, and how many there are of what."""
    return {
        place: text
        for place, text in fakes.items()
        if "[" not in place and (_COUNT.fullmatch(text) or _NUMBER.fullmatch(text))
    }
