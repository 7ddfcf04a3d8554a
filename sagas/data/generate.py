"""Make the files beside this module: run `python -m sagas.data.generate`.

Which orders fail, and why, is decided by the data alone: any order of processing gives the same outcome.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from sagas.data.dice import Dice
from sagas.data.samples import make_samples

ORDERS = 500
FAILURES = {
    "OutOfStock": 25,
    "CardLimitExceeded": 25,
    "UnknownAddress": 14,
    "CountryNotServed": 6,
    "TaxIdMissing": 8,
    "ReviewRequired": 7,
}
COMPLETED = "completed"
SMALL_CARD, CARD, LARGE_CARD = 100_000, 450_000, 1_000_000

FORMS = ("chair", "table", "lamp", "shelf", "mirror", "stool", "desk", "bench", "chest", "clock")
WOODS = (("pine", 3_450), ("ash", 9_900), ("oak", 14_900), ("walnut", 34_900))
FIRST = (
    "Ada",
    "Bo",
    "Chen",
    "Dora",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ivo",
    "Jana",
    "Kofi",
    "Lena",
)
LAST = ("Adler", "Brandt", "Castro", "Duarte", "Eriksen")
STREETS = (
    "Harbour Street",
    "Mill Lane",
    "Station Road",
    "Linden Avenue",
    "Church Square",
    "Garden Way",
)
CITIES = (
    ("Bergen", "NO"),
    ("Ghent", "BE"),
    ("Porto", "PT"),
    ("Graz", "AT"),
    ("Turku", "FI"),
    ("Lyon", "FR"),
)
FAR_AWAY = ("McMurdo Station", "AQ")
FAR_CUSTOMERS, TAXLESS_CUSTOMER = (10, 35), 22
SOLD_OUT = (7, 18, 33)

Row = dict[str, Any]


def make(seed: int = 2026) -> dict[str, str]:
    """The text of each file by its name."""
    dice = Dice(seed)
    articles, customers = make_articles(), make_customers(dice)
    fates = [fate for fate, count in FAILURES.items() for _ in range(count)]
    fates = dice.shuffled(fates + [COMPLETED] * (ORDERS - len(fates)))
    orders = [
        make_order(dice, n, fate, articles, customers) for n, fate in enumerate(fates, start=1)
    ]
    fill_the_shelves(dice, articles, orders, fates)
    # Dice of their own: what is added here changes no order.
    known, samples, meant = make_samples(Dice(seed + 1), customers)
    return {
        "catalogue.json": as_json(make_catalogue(articles, customers, orders) | known),
        **{name: "".join(json.dumps(row) + "\n" for row in rows) for name, rows in samples.items()},
        "fates.json": as_json(meant),
        "orders.jsonl": "".join(json.dumps(order) + "\n" for order in orders),
        "expected.json": as_json(
            {
                "counts": dict(sorted(Counter(fates).items())),
                "refused": {
                    o["order_id"]: f for o, f in zip(orders, fates, strict=True) if f != COMPLETED
                },
            }
        ),
    }


def make_articles() -> list[Row]:
    """Forty pieces of furniture."""
    return [
        {
            "article": f"{wood}-{form}",
            "name": f"{wood} {form}".capitalize(),
            "cents": cents + 250 * n,
        }
        for n, (form, (wood, cents)) in enumerate(product(FORMS, WOODS))
    ]


def make_customers(dice: Dice) -> list[Row]:
    """Sixty people: two live where no carrier goes, one has no tax number."""
    rows = []
    for n, (first, last) in enumerate(product(FIRST, LAST)):
        city, country = FAR_AWAY if n in FAR_CUSTOMERS else dice.pick(CITIES)
        rows.append(
            {
                "customer": f"{first}-{last}".lower(),
                "name": f"{first} {last}",
                "address": f"{dice.pick(STREETS)} {dice.number(1, 120)}, {city}",
                "country": country,
                "tax_id": None
                if n == TAXLESS_CUSTOMER
                else f"{country}{dice.number(10_000_000, 99_999_999)}",
                "card_limit": (SMALL_CARD, CARD, LARGE_CARD)[n % 3],
            }
        )
    return rows


def make_order(
    dice: Dice, number: int, fate: str, articles: list[Row], customers: list[Row]
) -> Row:
    """An order that meets its fate, and no other."""
    customer = dice.pick(customers_for(fate, customers))
    article = dice.pick(articles_for(fate, articles))
    limit, price = customer["card_limit"], article["cents"]
    match fate:
        case "CardLimitExceeded":
            quantity = limit // price + dice.number(1, 3)
        case "ReviewRequired":
            quantity = dice.number(16, 20)
        case _:
            quantity = dice.number(1, min(6, limit // price))
    address = customer["address"]
    if fate == "UnknownAddress":
        address = f"{dice.pick(STREETS)} {dice.number(900, 999)}, {address.rpartition(', ')[2]}"
    return {
        "order_id": f"order-{number:04}",
        "customer": customer["customer"],
        "article": article["article"],
        "quantity": quantity,
        "cents": quantity * price,
        "address": address,
        "country": customer["country"],
    }


def customers_for(fate: str, customers: list[Row]) -> list[Row]:
    """The customers whose orders can meet this fate."""
    if fate == "CountryNotServed":
        return [customers[n] for n in FAR_CUSTOMERS]
    if fate == "TaxIdMissing":
        return [customers[TAXLESS_CUSTOMER]]
    plain = [c for n, c in enumerate(customers) if n not in (*FAR_CUSTOMERS, TAXLESS_CUSTOMER)]
    limit = {"CardLimitExceeded": SMALL_CARD, "ReviewRequired": LARGE_CARD}.get(fate)
    return [c for c in plain if limit is None or c["card_limit"] == limit]


def articles_for(fate: str, articles: list[Row]) -> list[Row]:
    """The articles that orders of this fate ask for."""
    kept = [a for n, a in enumerate(articles) if n not in SOLD_OUT]
    if fate == "ReviewRequired":
        return [a for a in kept if a["article"].startswith("walnut")]
    return articles if fate == "OutOfStock" else kept


def fill_the_shelves(dice: Dice, articles: list[Row], orders: list[Row], fates: list[str]) -> None:
    """Stock enough for all orders that are to get their goods; the others ask for more than there ever is."""
    demand = Counter[str]()
    for order, fate in zip(orders, fates, strict=True):
        if fate != "OutOfStock":
            demand[order["article"]] += order["quantity"]
    for n, article in enumerate(articles):
        article["stock"] = 0 if n in SOLD_OUT else demand[article["article"]] + dice.number(5, 40)
    by_name = {article["article"]: article for article in articles}
    for order, fate in zip(orders, fates, strict=True):
        article = by_name[order["article"]]
        if fate == "OutOfStock" and article["stock"]:
            order["quantity"] = article["stock"] + dice.number(1, 9)
            order["cents"] = order["quantity"] * article["cents"]


def make_catalogue(articles: list[Row], customers: list[Row], orders: list[Row]) -> Row:
    """Everything that the participants know before the first order."""
    spent = Counter[str]()
    for order in orders:
        spent[order["customer"]] += order["cents"]
    accounts = [
        {
            "account": customer["customer"],
            "balance": (spent[customer["customer"]] // 100_000 + 5) * 100_000,
            "card_limit": customer["card_limit"],
        }
        for customer in customers
    ]
    accounts.append({"account": "closed-account", "balance": 0, "card_limit": 0, "closed": True})
    return {
        "articles": articles,
        "customers": customers,
        "accounts": accounts,
        "countries": [
            *({"country": country, "served": True} for _, country in CITIES),
            {"country": FAR_AWAY[1], "served": False},
        ],
        "banned_users": ["mallory@example.org"],
        "refusing_domains": ["no-mail.example"],
    }


def as_json(value: Mapping[str, Any]) -> str:
    """JSON for people: a line per row, if it is short."""
    return json.dumps(value, indent=1) + "\n"


def main() -> None:
    """Write the files beside this module."""
    for name, text in make().items():
        Path(__file__).with_name(name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
