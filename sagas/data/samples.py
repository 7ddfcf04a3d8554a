"""Trips, loans and wishes, what the participants must know for them, and how each of them is to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagas.data.dice import Dice

Row = dict[str, Any]

COMPLETED, WAITS = "completed", "waits"
TRIPS = {COMPLETED: 28, "SoldOut": 4, "PriceChanged": 2, "PapersMissing": 4, "CardLimitExceeded": 2}
LOANS = {COMPLETED: 16, WAITS: 10, "Declined": 10, "UnknownApplicant": 4}
WISHES = {COMPLETED: 16, "Unsafe": 4, "NotUnderstood": 4, "MailboxRefused": 3, "SlotTaken": 3}

PLACES = ("bergen", "ghent", "porto", "graz", "turku", "lyon")
KINDS = (("flight", 21_900), ("hotel", 14_900), ("car", 8_900))
WITHOUT_PASSPORT, WITHOUT_LICENCE = 8, 14
LARGE_CARDS = tuple(n for n in range(2, 60, 3) if n not in (WITHOUT_PASSPORT, WITHOUT_LICENCE, 35))
SMALL_CARDS = (0, 3, 6)
THINGS = ("milk", "the blue paint", "a birthday card", "the tax form", "new light bulbs")
DEEDS = ("call the dentist", "water the plants", "feed the cat", "leave for the station")
FRIENDS = ("tim", "eve", "bob", "kim")


def make_samples(
    dice: Dice, customers: list[Row]
) -> tuple[Row, Mapping[str, list[Row]], Mapping[str, Mapping[str, str]]]:
    """What is added to the catalogue, the rows of each file, and the fate of each by its id."""
    names = [customer["customer"] for customer in customers]
    trips, loans, wishes = (_fates(dice, counts) for counts in (TRIPS, LOANS, WISHES))
    files = {
        "trips.jsonl": [make_trip(dice, n, fate, names) for n, fate in enumerate(trips, 1)],
        "loans.jsonl": [make_loan(dice, n, fate, names) for n, fate in enumerate(loans, 1)],
        "wishes.jsonl": [make_wish(dice, n, fate) for n, fate in enumerate(wishes, 1)],
    }
    meant = {
        "trips": {f"trip-{n:03}": fate for n, fate in enumerate(trips, 1)},
        "loans": {f"loan-{n:03}": fate for n, fate in enumerate(loans, 1)},
        "wishes": {f"user{n:03}@example.org": fate for n, fate in enumerate(wishes, 1)},
    }
    return make_known(names), files, meant


def make_known(names: list[str]) -> Row:
    """Offers, papers, credit files and the fund."""
    offers = [
        {"offer": f"{kind}-{place}", "kind": kind, "cents": cents + 500 * n, "places": 1_000}
        for n, place in enumerate(PLACES)
        for kind, cents in KINDS
    ]
    offers += [
        {"offer": f"{kind}-atlantis", "kind": kind, "cents": cents, "places": 0}
        for kind, cents in KINDS
    ]
    papers = {
        WITHOUT_PASSPORT: ["licence"],
        WITHOUT_LICENCE: ["passport"],
    }
    return {
        "offers": offers,
        "travellers": [
            {"traveller": name, "papers": papers.get(n, ["passport", "licence"])}
            for n, name in enumerate(names)
        ],
        "credit_files": [
            {"applicant": name, "score": 700 if n % 2 else 450} for n, name in enumerate(names)
        ],
        "funds": [{"fund": "retail", "cents": 10_000_000_000}],
    }


def make_trip(dice: Dice, number: int, fate: str, names: list[str]) -> Row:
    """A trip that meets its fate, and no other."""
    where = dice.number(0, len(PLACES) - 1)
    legs = [_leg(kind, where) for kind in range(3)][: dice.number(1, 3)]
    traveller = LARGE_CARDS[number % len(LARGE_CARDS)]
    match fate:
        case "SoldOut":
            kind, cents = dice.pick(KINDS)
            legs.append({"kind": kind, "offer": f"{kind}-atlantis", "cents": cents})
        case "PriceChanged":
            legs[-1]["cents"] -= 100
        case "PapersMissing":
            flies = dice.number(0, 1) == 1
            traveller = WITHOUT_PASSPORT if flies else WITHOUT_LICENCE
            legs = [_leg(1, where), _leg(0 if flies else 2, where)]
        case "CardLimitExceeded":
            traveller = SMALL_CARDS[number % len(SMALL_CARDS)]
            legs = [_leg(0, n) for n in range(len(PLACES))]
    return {"trip_id": f"trip-{number:03}", "traveller": names[traveller], "legs": legs}


def _leg(kind: int, where: int) -> Row:
    name, cents = KINDS[kind]
    return {"kind": name, "offer": f"{name}-{PLACES[where]}", "cents": cents + 500 * where}


def make_loan(dice: Dice, number: int, fate: str, names: list[str]) -> Row:
    """An application that meets its fate. A score of 700 goes with an odd place among the names."""
    sound = 2 * dice.number(0, len(names) // 2 - 1) + 1
    applicant, cents, income = names[sound], dice.number(5, 50) * 10_000, 300_000
    match fate:
        case "waits":
            cents = dice.number(60, 200) * 10_000
        case "UnknownApplicant":
            applicant = f"stranger-{number}"
        case "Declined" if number % 2:
            applicant = names[sound - 1]
        case "Declined":
            income = 500
    return {
        "loan_id": f"loan-{number:03}",
        "applicant": applicant,
        "cents": cents,
        "months": 60,
        "income_cents": income,
    }


def make_wish(dice: Dice, number: int, fate: str) -> Row:
    """What a user says who wants one thing, or several."""
    note, friend = f"note buy {dice.pick(THINGS)}", dice.pick(FRIENDS)
    due = f"{dice.number(7, 21):02}:{dice.number(0, 59):02}"
    reminder = f"remind me at {due} to {dice.pick(DEEDS)}"
    mail = f"mail {friend}@example.org about lunch"
    match fate:
        case "Unsafe":
            wishes = [note, f"mail {friend}@example.org about the password of the bank"]
        case "NotUnderstood":
            wishes = [note, "make me a sandwich"][number % 2 :]
        case "MailboxRefused":
            wishes = [note, f"mail {friend}@no-mail.example about lunch"]
        case "SlotTaken":
            wishes = [reminder, f"remind me at {due} to be somewhere else"]
        case _:
            wishes = [note, reminder, mail][: dice.number(1, 3)]
    return {"user": f"user{number:03}@example.org", "text": " and then ".join(wishes)}


def _fates(dice: Dice, counts: Mapping[str, int]) -> list[str]:
    return dice.shuffled([fate for fate, count in counts.items() for _ in range(count)])
