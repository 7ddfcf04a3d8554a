"""Does everything add up? Computed from the participants' own tables, without asking the sagas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

ORDER_KINDS = ("hold", "payment", "parcel", "receipt")


@dataclass(frozen=True)
class Books:
    """One consistent look at all participants."""

    problems: tuple[str, ...]
    """A sentence for each sum that does not agree; none when the books balance."""
    live: Mapping[str, frozenset[str]]
    """Per kind of effect: the orders, transfers, people that have one standing."""
    undone: Mapping[str, frozenset[str]]
    """Per kind: those that had one, and it was taken back."""

    @property
    def balanced(self) -> bool:
        return not self.problems

    @property
    def holding(self) -> frozenset[str]:
        """Orders with a live hold."""
        return self.live["hold"]

    @property
    def paid(self) -> frozenset[str]:
        """Orders with a live payment."""
        return self.live["payment"]

    @property
    def shipped(self) -> frozenset[str]:
        """Orders with a live parcel."""
        return self.live["parcel"]

    @property
    def receipted(self) -> frozenset[str]:
        """Orders with a live receipt."""
        return self.live["receipt"]

    @property
    def fulfilled(self) -> frozenset[str]:
        """Orders with all four effects."""
        return self.holding & self.paid & self.shipped & self.receipted

    @property
    def half_done(self) -> frozenset[str]:
        """Orders with some of the four effects: none, when no saga is on its way."""
        trips = self.live["booking"] | self.undone["booking"]
        some = self.holding | self.paid | self.shipped | self.receipted
        return some - self.fulfilled - trips

    @property
    def travelling(self) -> frozenset[str]:
        """Trips that are booked, paid and ticketed."""
        return self.live["booking"] & self.paid & self.live["ticket"]

    @property
    def half_booked(self) -> frozenset[str]:
        """Trips with something booked or ticketed and not all: none, when no saga is on its way."""
        some = self.live["booking"] | self.live["registration"] | self.live["ticket"]
        return some - self.travelling

    @property
    def half_lent(self) -> frozenset[str]:
        """Loans with money reserved but not paid out: none, when no saga is on its way."""
        return self.live["reservation"] - self.live["loan"]


async def balance_books(pool: asyncpg.Pool) -> Books:
    """Add everything up in one snapshot."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        problems = [row[0] for check in CHECKS for row in await connection.fetch(check)]
        standing = await connection.fetch(STANDING)
    live: dict[str, frozenset[str]] = dict.fromkeys(KINDS, frozenset())
    undone = live.copy()
    for row in standing:
        (live if row["state"] == "live" else undone)[row["kind"]] = frozenset(row["reference_ids"])
    return Books(tuple(problems), live, undone)


TRIP_KINDS = ("booking", "registration", "ticket")
LOAN_KINDS = ("enquiry", "reservation", "loan")
KINDS = (
    *ORDER_KINDS, "reserve", "debit", "credit", "confirm", "user", "activation", "mail",
    *TRIP_KINDS, *LOAN_KINDS, "note", "reminder",
)  # fmt: skip

STANDING = """
SELECT kind, state, array_agg(DISTINCT reference) AS reference_ids
FROM participants.effect WHERE state <> 'barred' GROUP BY kind, state
UNION ALL
SELECT 'loan', 'live', array_agg(DISTINCT loan_id) FROM participants.lender_ledger HAVING count(*) > 0
"""

ARTICLES = """
SELECT format('article %s: %s at first, %s held, but %s on hand', a.article, a.initial, coalesce(h.held, 0), a.on_hand)
FROM participants.stock_article a
LEFT JOIN (
    SELECT article, sum(quantity) AS held FROM participants.stock_hold WHERE state = 'live' GROUP BY article
) h USING (article)
WHERE a.initial - coalesce(h.held, 0) <> a.on_hand
ORDER BY a.article
"""

ACCOUNTS = """
SELECT format('account %s: cents %s, reserved %s, pending %s; its payments and transfers make %s, %s, %s',
    a.account, a.cents, a.reserved, a.pending, s.cents, s.reserved, s.pending)
FROM participants.bank_account a
CROSS JOIN LATERAL (
    SELECT a.initial + coalesce(sum(m.cents), 0) AS cents,
        coalesce(sum(m.reserved), 0) AS reserved,
        coalesce(sum(m.pending), 0) AS pending
    FROM (
        SELECT account, -cents AS cents, 0 AS reserved, 0 AS pending
        FROM participants.bank_payment WHERE state = 'live'
        UNION ALL
        SELECT account, cents_sign * cents, reserved_sign * cents, pending_sign * cents
        FROM participants.bank_leg WHERE state = 'live'
        UNION ALL
        SELECT account, cents, 0, 0 FROM participants.lender_ledger
    ) m
    WHERE m.account = a.account
) s
WHERE (a.cents, a.reserved, a.pending) IS DISTINCT FROM (s.cents, s.reserved, s.pending)
ORDER BY a.account
"""

TILLS = """
SELECT format('till %s holds %s cents; its payments make %s', t.till, t.cents, coalesce(sum(p.cents), 0))
FROM participants.bank_till t
LEFT JOIN participants.bank_payment p ON p.till = t.till AND p.state = 'live'
GROUP BY t.till, t.cents HAVING t.cents <> coalesce(sum(p.cents), 0)
ORDER BY t.till
"""

MONEY = """
SELECT format('%s cents came into the bank; it accounts for %s', came, stays)
FROM (
    SELECT (SELECT coalesce(sum(initial), 0) FROM participants.bank_account)
        + (SELECT coalesce(sum(cents), 0) FROM participants.lender_ledger) AS came,
        (SELECT coalesce(sum(cents + pending), 0) FROM participants.bank_account)
        + (SELECT coalesce(sum(cents), 0) FROM participants.bank_till)
        + (SELECT coalesce(sum(CASE kind WHEN 'debit' THEN cents WHEN 'credit' THEN -cents ELSE 0 END), 0)
           FROM participants.bank_leg WHERE state = 'live') AS stays
) s
WHERE came <> stays
"""

REPEATS = """
SELECT format('%s %s has %s live effects of kind %s', CASE WHEN kind IN ('hold', 'payment', 'parcel', 'receipt')
    THEN 'order' WHEN kind IN ('enquiry', 'reservation') THEN 'loan' ELSE 'transfer' END, reference, count(*), kind)
FROM participants.effect
WHERE state = 'live' AND kind IN ('hold', 'payment', 'parcel', 'receipt', 'reserve', 'debit', 'credit', 'confirm',
    'enquiry', 'reservation')
GROUP BY kind, reference HAVING count(*) > 1
ORDER BY kind, reference
"""

RECEIPTS = """
SELECT format('the receipt of order %s says %s cents, its payment %s',
    r.order_id, r.cents, coalesce(p.cents::text, 'does not stand'))
FROM participants.receipts_receipt r
LEFT JOIN participants.bank_payment p ON p.order_id = r.order_id AND p.state = 'live'
WHERE r.state = 'live' AND r.cents IS DISTINCT FROM p.cents
ORDER BY r.order_id
"""

OFFERS = """
SELECT format('offer %s: %s places at first, %s booked, but %s left',
    o.offer, o.initial, coalesce(b.booked, 0), o.places)
FROM participants.travel_offer o
LEFT JOIN (
    SELECT offer, count(*) AS booked FROM participants.travel_booking WHERE state = 'live' GROUP BY offer
) b USING (offer)
WHERE o.initial - coalesce(b.booked, 0) <> o.places
ORDER BY o.offer
"""

TICKETS = """
SELECT format('booking %s of trip %s has %s tickets', t.booking, t.trip_id, count(*))
FROM participants.travel_ticket t GROUP BY t.booking, t.trip_id HAVING count(*) > 1
UNION ALL
SELECT format('trip %s has tickets for %s cents of bookings, its payment is %s',
    t.trip_id, coalesce(b.cents, 0), coalesce(p.cents::text, 'not there'))
FROM (SELECT DISTINCT trip_id FROM participants.travel_ticket) t
LEFT JOIN (
    SELECT trip_id, sum(cents) AS cents FROM participants.travel_booking WHERE state = 'live' GROUP BY trip_id
) b USING (trip_id)
LEFT JOIN participants.bank_payment p ON p.order_id = t.trip_id AND p.state = 'live'
WHERE b.cents IS DISTINCT FROM p.cents
"""

FUNDS = """
SELECT format('fund %s: %s cents at first, %s promised, but %s left', f.fund, f.initial, coalesce(r.cents, 0), f.cents)
FROM participants.lender_fund f
LEFT JOIN (
    SELECT fund, sum(cents) AS cents FROM participants.lender_reservation WHERE state = 'live' GROUP BY fund
) r USING (fund)
WHERE f.initial - coalesce(r.cents, 0) <> f.cents
ORDER BY f.fund
"""

LOANS = """
SELECT format('loan %s: the ledger has %s entries of %s cents together, reserved are %s',
    l.loan_id, l.entries, l.cents, coalesce(r.cents, 0))
FROM (
    SELECT loan_id, count(*) AS entries, sum(cents) AS cents FROM participants.lender_ledger GROUP BY loan_id
) l
LEFT JOIN (
    SELECT loan_id, sum(cents) AS cents FROM participants.lender_reservation WHERE state = 'live' GROUP BY loan_id
) r USING (loan_id)
WHERE l.entries <> 1 OR l.cents IS DISTINCT FROM r.cents
ORDER BY l.loan_id
"""

CHECKS = (
    ARTICLES, ACCOUNTS, TILLS, MONEY, REPEATS, RECEIPTS, OFFERS, TICKETS, FUNDS, LOANS,
)  # fmt: skip
