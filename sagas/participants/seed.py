"""Load the catalogue: what is sold and lent, customers with their accounts and papers, whom the services refuse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import asyncpg

from sagas.participants.install import create, lock

Catalogue = Mapping[str, Any]


def read_catalogue() -> Catalogue:
    """The catalogue that the orders in `sagas/data/orders.jsonl` were made for."""
    catalogue: Catalogue = json.loads(
        files("sagas.data").joinpath("catalogue.json").read_text("utf-8")
    )
    return catalogue


async def seed(
    pool: asyncpg.Pool, catalogue: Catalogue | None = None, *, reset: bool = False
) -> None:
    """Load what is not there yet; with *reset* everything that the participants remember is thrown away first."""
    content = json.dumps(read_catalogue() if catalogue is None else catalogue)
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        if reset:
            await connection.execute(RESET)
        await _load(connection, content)


async def open_for_business(pool: asyncpg.Pool) -> None:
    """Install the schema where it is not there yet, and the catalogue with it: examples work at once."""
    async with pool.acquire() as connection, connection.transaction():
        await lock(connection)
        if await create(connection):
            await _load(connection, json.dumps(read_catalogue()))


async def _load(connection: asyncpg.pool.PoolConnectionProxy, content: str) -> None:
    for statement in LOAD:
        await connection.execute(statement, content)


RESET = """
TRUNCATE participants.stock_article, participants.stock_hold, participants.bank_account, participants.bank_payment,
    participants.bank_leg, participants.parcels_country, participants.parcels_address, participants.parcels_parcel,
    participants.receipts_customer, participants.receipts_receipt, participants.users_banned, participants.users_user,
    participants.users_activation, participants.mail_refusing_domain, participants.mail_message,
    participants.travel_offer, participants.travel_traveller, participants.travel_booking,
    participants.travel_registration, participants.travel_ticket, participants.credit_file,
    participants.credit_enquiry, participants.lender_fund, participants.lender_reservation,
    participants.lender_ledger, participants.desk_note, participants.desk_reminder RESTART IDENTITY;
UPDATE participants.bank_till SET cents = 0;
"""

LOAD = (
    """
    INSERT INTO participants.stock_article (article, name, cents, initial, on_hand)
    SELECT article, name, cents, stock, stock
    FROM jsonb_to_recordset($1::jsonb -> 'articles') AS a (article text, name text, cents bigint, stock integer)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.bank_account (account, initial, cents, card_limit, closed)
    SELECT account, balance, balance, card_limit, coalesce(closed, false)
    FROM jsonb_to_recordset($1::jsonb -> 'accounts')
        AS a (account text, balance bigint, card_limit bigint, closed boolean)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.parcels_country (country, served)
    SELECT country, served FROM jsonb_to_recordset($1::jsonb -> 'countries') AS c (country text, served boolean)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.parcels_address (address, country)
    SELECT address, country FROM jsonb_to_recordset($1::jsonb -> 'customers') AS c (address text, country text)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.receipts_customer (customer, tax_id)
    SELECT customer, tax_id FROM jsonb_to_recordset($1::jsonb -> 'customers') AS c (customer text, tax_id text)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.users_banned (email)
    SELECT jsonb_array_elements_text($1::jsonb -> 'banned_users') ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.mail_refusing_domain (domain)
    SELECT jsonb_array_elements_text($1::jsonb -> 'refusing_domains') ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.travel_offer (offer, kind, cents, initial, places)
    SELECT offer, kind, cents, places, places
    FROM jsonb_to_recordset($1::jsonb -> 'offers') AS o (offer text, kind text, cents bigint, places integer)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.travel_traveller (traveller, papers)
    SELECT traveller, papers FROM jsonb_to_recordset($1::jsonb -> 'travellers') AS t (traveller text, papers text[])
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.credit_file (applicant, score)
    SELECT applicant, score FROM jsonb_to_recordset($1::jsonb -> 'credit_files') AS f (applicant text, score integer)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO participants.lender_fund (fund, initial, cents)
    SELECT fund, cents, cents FROM jsonb_to_recordset($1::jsonb -> 'funds') AS f (fund text, cents bigint)
    ON CONFLICT DO NOTHING
    """,
)
