-- The participants' own tables. Every effect is a row under the caller's key:
--   state  live | undone | barred (its undo came first)
--   calls  how often the call came; an effect is applied by the call that finds calls = 1 on a live row
--   undos  how often its undo came; an effect is taken back by the undo that finds undos = 1 on an undone row
-- Lock order: the row of the key, then one account, article, offer or fund, then one till.

CREATE SCHEMA IF NOT EXISTS participants;

-- Raises in the middle of a statement, so that the whole statement leaves nothing behind.
CREATE OR REPLACE FUNCTION participants.refuse(name text, detail text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = name, DETAIL = detail;
END $$;

CREATE TABLE IF NOT EXISTS participants.stock_article (
    article text PRIMARY KEY,
    name    text NOT NULL,
    cents   bigint NOT NULL CHECK (cents > 0),
    initial integer NOT NULL CHECK (initial >= 0),
    on_hand integer NOT NULL CHECK (on_hand >= 0)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS participants.stock_hold (
    key      text PRIMARY KEY,
    number   bigint GENERATED ALWAYS AS IDENTITY,
    order_id text,
    article  text,
    quantity integer CHECK (quantity > 0),
    state    text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls    integer NOT NULL DEFAULT 1,
    undos    integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(order_id, article, quantity) = 0)
);

CREATE TABLE IF NOT EXISTS participants.bank_account (
    account    text PRIMARY KEY,
    initial    bigint NOT NULL CHECK (initial >= 0),
    cents      bigint NOT NULL,                             -- a confirmed credit that is taken back may overdraw
    reserved   bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    pending    bigint NOT NULL DEFAULT 0 CHECK (pending >= 0),
    card_limit bigint NOT NULL CHECK (card_limit >= 0),
    closed     boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);

-- The merchant's account in sixteen parts: one row would make all payments wait for each other's commit.
CREATE TABLE IF NOT EXISTS participants.bank_till (
    till  integer PRIMARY KEY,
    cents bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 20);

INSERT INTO participants.bank_till (till) SELECT generate_series(0, 15) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS participants.bank_payment (
    key      text PRIMARY KEY,
    number   bigint GENERATED ALWAYS AS IDENTITY,
    order_id text,
    account  text,
    cents    bigint CHECK (cents > 0),
    till     integer,
    state    text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls    integer NOT NULL DEFAULT 1,
    undos    integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(order_id, account, cents, till) = 0)
);

-- One leg of a transfer: reserve, debit, credit, confirm. The signs say what it does to its account.
CREATE TABLE IF NOT EXISTS participants.bank_leg (
    key           text PRIMARY KEY,
    number        bigint GENERATED ALWAYS AS IDENTITY,
    kind          text CHECK (kind IN ('reserve', 'debit', 'credit', 'confirm')),
    transfer_id   text,
    account       text,
    cents         bigint CHECK (cents > 0),
    cents_sign    integer,
    reserved_sign integer,
    pending_sign  integer,
    state         text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls         integer NOT NULL DEFAULT 1,
    undos         integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(kind, transfer_id, account, cents, cents_sign, reserved_sign, pending_sign) = 0)
);
CREATE INDEX IF NOT EXISTS bank_leg_transfer ON participants.bank_leg (transfer_id, kind) WHERE state = 'live';

CREATE TABLE IF NOT EXISTS participants.parcels_country (
    country text PRIMARY KEY,
    served  boolean NOT NULL
);

CREATE TABLE IF NOT EXISTS participants.parcels_address (
    address text,
    country text REFERENCES participants.parcels_country,
    PRIMARY KEY (address, country)
);

CREATE TABLE IF NOT EXISTS participants.parcels_parcel (
    key      text PRIMARY KEY,
    number   bigint GENERATED ALWAYS AS IDENTITY,
    order_id text,
    address  text,
    country  text,
    state    text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls    integer NOT NULL DEFAULT 1,
    undos    integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(order_id, address, country) = 0)
);

CREATE TABLE IF NOT EXISTS participants.receipts_customer (
    customer text PRIMARY KEY,
    tax_id   text
);

CREATE TABLE IF NOT EXISTS participants.receipts_receipt (
    key      text PRIMARY KEY,
    number   bigint GENERATED ALWAYS AS IDENTITY,
    order_id text,
    customer text,
    cents    bigint CHECK (cents > 0),
    payment  text,
    parcel   text,
    state    text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls    integer NOT NULL DEFAULT 1,
    undos    integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(order_id, customer, cents, payment, parcel) = 0)
);
CREATE UNIQUE INDEX IF NOT EXISTS receipts_one_per_order ON participants.receipts_receipt (order_id) WHERE state = 'live';

CREATE TABLE IF NOT EXISTS participants.users_banned (email text PRIMARY KEY);

CREATE TABLE IF NOT EXISTS participants.users_user (
    key    text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    email  text,
    name   text,
    active boolean NOT NULL DEFAULT false,
    state  text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls  integer NOT NULL DEFAULT 1,
    undos  integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(email, name) = 0),
    CHECK (state = 'live' OR NOT active)
);
CREATE UNIQUE INDEX IF NOT EXISTS users_one_per_email ON participants.users_user (lower(email)) WHERE state = 'live';

CREATE TABLE IF NOT EXISTS participants.users_activation (
    key         text PRIMARY KEY,
    number      bigint GENERATED ALWAYS AS IDENTITY,
    user_number bigint,
    state       text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls       integer NOT NULL DEFAULT 1,
    undos       integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR user_number IS NOT NULL)
);

CREATE TABLE IF NOT EXISTS participants.mail_refusing_domain (domain text PRIMARY KEY);

CREATE TABLE IF NOT EXISTS participants.mail_message (
    key       text PRIMARY KEY,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    recipient text,
    subject   text,
    body      text,
    state     text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls     integer NOT NULL DEFAULT 1,
    undos     integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(recipient, subject, body) = 0)
);

-- An offer has places; a booking takes one. A registration shows a paper; a ticket is never taken back.
CREATE TABLE IF NOT EXISTS participants.travel_offer (
    offer   text PRIMARY KEY,
    kind    text NOT NULL CHECK (kind IN ('flight', 'hotel', 'car')),
    cents   bigint NOT NULL CHECK (cents > 0),
    initial integer NOT NULL CHECK (initial >= 0),
    places  integer NOT NULL CHECK (places >= 0)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS participants.travel_traveller (
    traveller text PRIMARY KEY,
    papers    text[] NOT NULL
);

CREATE TABLE IF NOT EXISTS participants.travel_booking (
    key       text PRIMARY KEY,
    number    bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    trip_id   text,
    offer     text,
    traveller text,
    cents     bigint CHECK (cents > 0),
    state     text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls     integer NOT NULL DEFAULT 1,
    undos     integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(trip_id, offer, traveller, cents) = 0)
);
CREATE INDEX IF NOT EXISTS travel_booking_trip ON participants.travel_booking (trip_id) WHERE state = 'live';

CREATE TABLE IF NOT EXISTS participants.travel_registration (
    key       text PRIMARY KEY,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    trip_id   text,
    traveller text,
    paper     text,
    state     text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls     integer NOT NULL DEFAULT 1,
    undos     integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(trip_id, traveller, paper) = 0)
);

CREATE TABLE IF NOT EXISTS participants.travel_ticket (
    key     text PRIMARY KEY,
    number  bigint GENERATED ALWAYS AS IDENTITY,
    trip_id text NOT NULL,
    booking bigint NOT NULL,
    state   text NOT NULL DEFAULT 'live' CHECK (state = 'live'),
    calls   integer NOT NULL DEFAULT 1,
    undos   integer NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS participants.credit_file (
    applicant text PRIMARY KEY,
    score     integer NOT NULL
);

CREATE TABLE IF NOT EXISTS participants.credit_enquiry (
    key       text PRIMARY KEY,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    loan_id   text,
    applicant text,
    score     integer,
    state     text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls     integer NOT NULL DEFAULT 1,
    undos     integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(loan_id, applicant) = 0)
);

CREATE TABLE IF NOT EXISTS participants.lender_fund (
    fund    text PRIMARY KEY,
    initial bigint NOT NULL CHECK (initial >= 0),
    cents   bigint NOT NULL CHECK (cents >= 0)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS participants.lender_reservation (
    key     text PRIMARY KEY,
    number  bigint GENERATED ALWAYS AS IDENTITY,
    loan_id text,
    fund    text,
    cents   bigint CHECK (cents > 0),
    state   text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls   integer NOT NULL DEFAULT 1,
    undos   integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(loan_id, fund, cents) = 0)
);

-- No key and no unique index: that a loan has one entry is what the transaction of its step is for.
CREATE TABLE IF NOT EXISTS participants.lender_ledger (
    entry   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    loan_id text NOT NULL,
    account text NOT NULL,
    cents   bigint NOT NULL CHECK (cents > 0)
);

CREATE TABLE IF NOT EXISTS participants.desk_note (
    key    text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    owner  text,
    body   text,
    state  text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls  integer NOT NULL DEFAULT 1,
    undos  integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(owner, body) = 0)
);

CREATE TABLE IF NOT EXISTS participants.desk_reminder (
    key    text PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    owner  text,
    due    text,
    body   text,
    state  text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'undone', 'barred')),
    calls  integer NOT NULL DEFAULT 1,
    undos  integer NOT NULL DEFAULT 0,
    CHECK (state = 'barred' OR num_nulls(owner, due, body) = 0)
);
CREATE UNIQUE INDEX IF NOT EXISTS desk_one_reminder_at_a_time
    ON participants.desk_reminder (owner, due) WHERE state = 'live';

CREATE OR REPLACE VIEW participants.effect AS
          SELECT 'hold' AS kind, key, order_id AS reference, state, calls, undos FROM participants.stock_hold
UNION ALL SELECT 'payment', key, order_id, state, calls, undos FROM participants.bank_payment
UNION ALL SELECT coalesce(kind, 'leg'), key, transfer_id, state, calls, undos FROM participants.bank_leg
UNION ALL SELECT 'parcel', key, order_id, state, calls, undos FROM participants.parcels_parcel
UNION ALL SELECT 'receipt', key, order_id, state, calls, undos FROM participants.receipts_receipt
UNION ALL SELECT 'user', key, email, state, calls, undos FROM participants.users_user
UNION ALL SELECT 'activation', key, user_number::text, state, calls, undos FROM participants.users_activation
UNION ALL SELECT 'mail', key, recipient, state, calls, undos FROM participants.mail_message
UNION ALL SELECT 'booking', key, trip_id, state, calls, undos FROM participants.travel_booking
UNION ALL SELECT 'registration', key, trip_id, state, calls, undos FROM participants.travel_registration
UNION ALL SELECT 'ticket', key, trip_id, state, calls, undos FROM participants.travel_ticket
UNION ALL SELECT 'enquiry', key, loan_id, state, calls, undos FROM participants.credit_enquiry
UNION ALL SELECT 'reservation', key, loan_id, state, calls, undos FROM participants.lender_reservation
UNION ALL SELECT 'note', key, owner, state, calls, undos FROM participants.desk_note
UNION ALL SELECT 'reminder', key, owner, state, calls, undos FROM participants.desk_reminder;
