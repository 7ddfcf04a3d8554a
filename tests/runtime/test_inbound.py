"""Records become starts and signals: each once, to whom they are meant for, with where they came from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from orchestrator import DefinitionError, Filter, Orchestrator, Saga, Signal, Status, pure
from orchestrator.adapters.codec import JsonCodec
from orchestrator.adapters.memory import open_store
from orchestrator.adapters.postgres.store import open_store as open_postgres
from orchestrator.adapters.telemetry import SilentTelemetry
from orchestrator.errors import NotYetError, RejectedRecordError, UnavailableError
from orchestrator.messaging import OnEvent, OnSignal, on_event, on_signal
from orchestrator.ports import Instance, Record
from orchestrator.runtime.inbound import InboundIntake
from tests.contract.given import Given

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Order(BaseModel, frozen=True):
    order_id: str
    cents: int


class Placed(BaseModel, frozen=True):
    """What a shop says, which is not what our saga takes."""

    number: int
    total: float


class Paid(BaseModel, frozen=True):
    cents: int


def accept(order: Order) -> Order:
    return order


paid = Signal("paid", Paid)
orders = Saga("order", version=1, body=pure(accept) >> paid.wait())
others = Saga("other", version=1, body=pure(accept) >> paid.wait())


def record(value: Any, offset: int = 0, *, key: str | None = None, topic: str = "t",
           timestamp: int = 1, **headers: str) -> Record:  # fmt: skip
    raw = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    told = tuple((name, text.encode()) for name, text in headers.items())
    return Record(topic, 0, offset, timestamp, key.encode() if key else None, raw, told)


ORDER = {"order_id": "o-1", "cents": 500}


@pytest.fixture
async def service() -> AsyncIterator[Orchestrator]:
    async with open_store() as store:
        service = Orchestrator(store, JsonCodec(), SilentTelemetry(), [orders, others])
        yield service
        await service.close()


async def take(service: Orchestrator, one: OnEvent | OnSignal, *records: Record) -> None:
    intake = InboundIntake(service, [one])
    for each in records:
        await intake.take(each, 1)


async def started(service: Orchestrator) -> list[Instance]:
    return await service.search(Filter(limit=100))


async def inbox(service: Orchestrator, instance: Instance) -> list[Mapping[str, Any]]:
    return [one.payload for one in await service.store.inbox.read(instance.saga_id, 0)]


# ---------------------------------------------------------------------------- starts


async def test_a_record_starts_one_instance_however_often_it_comes(service: Orchestrator) -> None:
    rule = on_event("t", orders)
    await take(service, rule, record(ORDER, 0), record(ORDER, 1), record(ORDER, 0))

    assert sorted(one.key or "" for one in await started(service)) == ["t/0/0@1", "t/0/1@1"]
    assert (
        json.loads(str(await service.store.reads.input((await started(service))[0].saga_id)))
        == ORDER
    )


async def test_the_id_of_a_cloud_event_counts_wherever_its_record_lies(
    service: Orchestrator,
) -> None:
    ids = {"ce_id": "7", "ce_source": "/shop"}
    rule = on_event("t", orders)
    await take(service, rule, record(ORDER, 0, **ids), record(ORDER, 5, **ids))

    assert [one.key for one in await started(service)] == ["/shop#7"]


async def test_a_cloud_event_in_structured_mode_is_unwrapped(service: Orchestrator) -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "placed", "data": ORDER}
    kind = {"content-type": "application/cloudevents+json; charset=utf-8"}
    await take(service, on_event("t", orders), record(event, **kind))

    assert [one.key for one in await started(service)] == ["/shop#7"]


async def test_a_topic_that_was_made_anew_has_other_records(service: Orchestrator) -> None:
    rule = on_event("t", orders)
    await take(service, rule, record(ORDER, 0, timestamp=1), record(ORDER, 0, timestamp=2))

    assert len(await started(service)) == 2


async def test_with_a_key_the_same_order_starts_once_whatever_record_it_is_in(
    service: Orchestrator,
) -> None:
    rule = on_event("t", orders, key=lambda order: order.order_id)
    await take(service, rule, record(ORDER, 0), record(ORDER, 9))

    assert [one.key for one in await started(service)] == ["o-1"]
    with pytest.raises(RejectedRecordError, match="started with another input"):
        await take(service, rule, record({**ORDER, "cents": 1}, 10))


async def test_a_model_of_the_senders_is_made_into_the_input(service: Orchestrator) -> None:
    rule = on_event(
        "t", orders, model=Placed, key=lambda p: f"o-{p.number}",
        input=lambda p: Order(order_id=f"o-{p.number}", cents=round(p.total * 100)),
    )  # fmt: skip
    await take(service, rule, record({"number": 3, "total": 9.99}))

    [one] = await started(service)
    assert json.loads(str(await service.store.reads.input(one.saga_id))) == {
        "order_id": "o-3",
        "cents": 999,
    }


async def test_only_records_that_are_meant_count(service: Orchestrator) -> None:
    rule = on_event("t", orders, when=lambda headers: headers.get("ce_type") == "shop.Placed")
    await take(service, rule, record(ORDER, 0, ce_type="shop.Placed"), record(b"\xff", 1))

    assert len(await started(service)) == 1


async def test_who_asked_and_under_which_trace_goes_along(service: Orchestrator) -> None:
    headers = {"correlation_id": "request-7", "traceparent": TRACE}
    await take(service, on_event("t", orders), record(ORDER, **headers))

    [one] = await started(service)
    worker = await Given(service.store).worker()
    [claim] = await service.store.queue.claim(worker, 1, [("order", 1)])
    assert one.correlation_id == "request-7"
    assert json.loads(claim.context) == {
        "correlation_id": "request-7",
        "causation_id": "t/0/0@1",
        "trace_id": TRACE.split("-")[1],
        "span_id": TRACE.split("-")[2],
    }


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"{not json", "not a valid Order"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "no value"),
        ({"order_id": "o"}, "cents"),
        ([1, 2], "not a valid Order"),
    ],
    ids=["no json", "no text", "no value", "not the model", "another shape"],
)
async def test_a_poison_record_is_rejected_with_the_reason(
    service: Orchestrator, value: Any, why: str
) -> None:
    with pytest.raises(RejectedRecordError, match=why):
        await take(service, on_event("t", orders), record(value))

    assert await started(service) == []


@pytest.mark.parametrize(
    ("functions", "why"),
    [
        ({"key": lambda order: order.number}, "its key failed: AttributeError"),
        ({"key": lambda order: order.cents}, "its key is 500, which is not a text"),
        ({"key": lambda _: "x" * 501}, "1 to 500 printable"),
        ({"when": lambda headers: headers["missing"]}, "its when failed: KeyError"),
    ],
    ids=["a bug", "a number", "too long", "when"],
)
async def test_what_its_own_functions_cannot_read_is_rejected(
    service: Orchestrator, functions: Any, why: str
) -> None:
    with pytest.raises(RejectedRecordError, match=why):
        await take(service, on_event("t", orders, **functions), record(ORDER))


async def test_a_store_that_is_away_rejects_nothing(service: Orchestrator) -> None:
    await service.close()
    broken = service.store.requests

    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("gone")

    broken.start = away  # type: ignore[method-assign]  # the store is the test's own
    fresh = Orchestrator(service.store, JsonCodec(), SilentTelemetry(), [orders])
    with pytest.raises(UnavailableError):
        await take(fresh, on_event("t", orders), record(ORDER))
    await fresh.close()


async def test_a_record_that_two_declarations_mean_goes_to_both(service: Orchestrator) -> None:
    intake = InboundIntake(service, [on_event("t", orders), on_event("t", others)])
    await intake.take(record(ORDER), 1)
    await intake.take(record(ORDER), 2)

    assert sorted(one.name for one in await started(service)) == ["order", "other"]


async def test_a_declaration_that_has_to_wait_holds_no_other_one_up(
    service: Orchestrator,
) -> None:
    """The signal's instance never comes: what else the record means is done all the same."""
    intake = InboundIntake(
        service,
        [
            on_signal("t", paid, orders, key=lambda _: "nobody", patience=3),
            on_signal("t", paid, others, key=lambda _: "nobody", patience=5),
            on_event("t", orders, model=Paid, input=lambda p: Order(order_id="o", cents=p.cents)),
        ],
    )
    with pytest.raises(NotYetError, match=r"'order'.*; .*'other'") as waits:
        await intake.take(record({"cents": 5}), 1)

    assert waits.value.patience == 5
    assert [one.name for one in await started(service)] == ["order"]


async def test_when_sees_the_attributes_of_a_cloud_event_in_structured_mode(
    service: Orchestrator,
) -> None:
    kind = {"content-type": "application/cloudevents+json"}
    rule = on_event("t", orders, when=lambda headers: headers["ce_type"] == "placed")
    for number, meant in enumerate(["placed", "cancelled"]):
        event = {"id": f"{number}", "source": "/shop", "type": meant, "data": ORDER}
        await take(service, rule, record(event, number, **kind))

    assert [one.key for one in await started(service)] == ["/shop#0"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((b"/shop", b"1#2"), (b"/shop#1", b"2")),
        (("/sh\u00f6p".encode("latin-1"), b"1"), ("/sh\u00e4p".encode("latin-1"), b"1")),
    ],
    ids=["the separator in them", "not UTF-8"],
)
async def test_two_cloud_events_never_share_an_id(
    service: Orchestrator, one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> None:
    for number, (source, name) in enumerate([one, other]):
        told = (("ce_source", source), ("ce_id", name))
        await take(service, on_event("t", orders), replace(record(ORDER, number), headers=told))

    assert len(await started(service)) == 2


async def test_ids_that_are_no_valid_unicode_are_told_apart(service: Orchestrator) -> None:
    kind = {"content-type": "application/cloudevents+json"}
    for number, name in enumerate([r"\ud800", r"\udbff"]):
        value = f'{{"id": "{name}", "source": "/shop", "data": {json.dumps(ORDER)}}}'.encode()
        await take(service, on_event("t", orders), record(value, number, **kind))

    assert len(await started(service)) == 2


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"[" * 100_000, "application/json"),
        (b"[" * 100_000, "application/cloudevents+json"),
        (b'{"data":' * 100_000, "application/cloudevents+json"),
    ],
)
async def test_what_is_nested_too_deep_is_rejected_and_stops_nothing(
    service: Orchestrator, value: bytes, kind: str
) -> None:
    with pytest.raises(RejectedRecordError):
        await take(service, on_event("t", orders), record(value, **{"content-type": kind}))


@pytest.mark.parametrize("name", ["correlation_id", "traceparent", "ce_id"])
@pytest.mark.parametrize("text", ["\0", "x" * 100_000, "\u202e", ""])
async def test_odd_headers_reject_the_record_at_worst(any_dsn: str, name: str, text: str) -> None:
    told = {"ce_source": "/shop", "ce_id": "1"} | {name: text}
    async with open_postgres(any_dsn) as store:
        service = Orchestrator(store, JsonCodec(), SilentTelemetry(), [orders])
        with contextlib.suppress(RejectedRecordError):
            await take(service, on_event("t", orders), record(ORDER, **told))
            assert len(await started(service)) == 1
        await service.close()


@pytest.mark.parametrize("text", ["\0", "x" * 100_000, "019", "\ud800"])
async def test_odd_names_of_an_instance_are_rejected_or_waited_for(any_dsn: str, text: str) -> None:
    async with open_postgres(any_dsn) as store:
        service = Orchestrator(store, JsonCodec(), SilentTelemetry(), [orders])
        for rule in (
            on_signal("t", paid, orders, key=lambda _: text),
            on_signal("t", paid, orders, saga_id=lambda _: text),
        ):
            with pytest.raises((RejectedRecordError, NotYetError)):
                await take(service, rule, record({"cents": 1}))
        await service.close()


# ---------------------------------------------------------------------------- signals


async def test_a_signal_reaches_the_instance_of_its_key_once(service: Orchestrator) -> None:
    one = await service.start(orders, Order(**ORDER), key="o-1")
    await service.start(others, Order(**ORDER), key="o-1")
    rule = on_signal("t", paid, orders)
    await take(service, rule, *[record({"cents": 5}, 4, key="o-1") for _ in range(3)])

    instance = await service.get(one.saga_id)
    assert await inbox(service, instance) == [{"name": "paid", "data": '{"cents":5}'}]
    [message] = await service.store.inbox.read(one.saga_id, 0)
    assert message.actor == "topic t/0/4"


async def test_the_instance_is_named_by_a_key_or_an_id_in_the_record(
    service: Orchestrator,
) -> None:
    class Payment(BaseModel):
        order: str
        cents: int

    one = await service.start(orders, Order(**ORDER), key="o-1")
    by_key = on_signal("t", paid, orders, model=Payment, key=lambda p: p.order,
                       payload=lambda p: Paid(cents=p.cents))  # fmt: skip
    by_id = on_signal("t", paid, orders, model=Payment, saga_id=lambda p: p.order,
                      payload=lambda p: Paid(cents=p.cents))  # fmt: skip
    await take(service, by_key, record({"order": "o-1", "cents": 1}, 0))
    await take(service, by_id, record({"order": one.saga_id, "cents": 2}, 1))

    found = await inbox(service, await service.get(one.saga_id))
    assert [message["data"] for message in found] == ['{"cents":1}', '{"cents":2}']


async def test_a_signal_to_an_instance_that_is_not_there_yet_is_tried_for_its_patience(
    service: Orchestrator,
) -> None:
    rule = on_signal("t", paid, orders, patience=7)
    with pytest.raises(NotYetError, match="no instance with key 'o-1'") as caught:
        await take(service, rule, record({"cents": 5}, key="o-1"))

    assert caught.value.patience == 7
    await service.start(orders, Order(**ORDER), key="o-1")
    await take(service, rule, record({"cents": 5}, key="o-1"))


async def test_the_beginning_of_an_id_is_no_id(service: Orchestrator) -> None:
    one = await service.start(orders, Order(**ORDER))
    rule = on_signal("t", paid, orders, saga_id=lambda _: one.saga_id[:8])
    with pytest.raises(NotYetError):
        await take(service, rule, record({"cents": 5}))


async def test_a_signal_to_an_instance_that_has_ended_is_rejected(service: Orchestrator) -> None:
    ended = await Given(service.store).at_rest(Status.COMPLETED)
    rule = on_signal("t", paid, orders, saga_id=lambda _: ended)
    with pytest.raises(RejectedRecordError, match="has ended"):
        await take(service, rule, record({"cents": 5}))


async def test_an_id_of_another_saga_is_rejected(service: Orchestrator) -> None:
    one = await service.start(others, Order(**ORDER))
    rule = on_signal("t", paid, orders, saga_id=lambda _: one.saga_id)
    with pytest.raises(RejectedRecordError, match="instance of 'other'"):
        await take(service, rule, record({"cents": 5}))


async def test_a_signal_without_any_key_is_rejected(service: Orchestrator) -> None:
    with pytest.raises(RejectedRecordError, match="its key is ''"):
        await take(service, on_signal("t", paid, orders), record({"cents": 5}))


# ---------------------------------------------------------------------------- declarations


def unheard(order: Order) -> Order:
    return order


silent = Saga("silent", version=1, body=pure(unheard))


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda: on_event("", orders), "a topic has 1 to 249"),
        (lambda: on_event("no spaces", orders), "a topic has 1 to 249"),
        (lambda: on_event("t", "order"), "what is started is a Saga"),  # type: ignore[call-overload]  # refused here
        (lambda: on_event("t", orders, key="order_id"), "key is a function"),  # type: ignore[call-overload]  # refused here
        (lambda: on_event("t", orders, model=Placed), "model and input go together"),  # type: ignore[call-overload]  # refused here
        (lambda: on_signal("t", "paid", orders), "what is sent is a Signal"),  # type: ignore[call-overload]  # refused here
        (lambda: on_signal("t", paid, silent), "waits for no signal 'paid'"),
        (lambda: on_signal("t", paid, orders, patience=-1), "patience is 0 or more"),
        (lambda: on_signal("t", paid, orders, key=str, saga_id=str), "not both"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(declare: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        declare()
