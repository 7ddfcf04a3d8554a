"""The published schemas: generated, true of everything that is published, and kept."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker

from orchestrator.adapters.asyncapi import document
from orchestrator.adapters.event_schemas import (
    PUBLISHED,
    STATE_ID,
    STATE_TYPE,
    all_schemas,
    event_schema,
    schema_file,
    schema_id,
)
from orchestrator.adapters.kafka.commands import command_of, read_command, reply_record
from orchestrator.adapters.kafka.records import headers_of, state_headers_of, state_of, value_of
from orchestrator.domain import events as ev
from orchestrator.domain.events import Json
from orchestrator.domain.evolve import fold
from orchestrator.domain.exchange import RemoteReply
from orchestrator.domain.standing import TURNS
from orchestrator.faces import contract
from orchestrator.ports import EventRow, FeedEvent
from tests.feed_events import NOON, feed_event
from tests.schema_policy import breaks

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "docs" / "events"
RECORDED = sorted((ROOT / "tests" / "histories").glob("*.json"))
META = '{"correlation_id":"request-7","user_id":"ann"}'
_TURNS = {kind.__name__ for kind in TURNS}


def validator(id_: str) -> Draft202012Validator:
    schema = json.loads((EVENTS / schema_file(id_)).read_text())
    return Draft202012Validator(schema, format_checker=FormatChecker())


def published(path: Path) -> Iterator[FeedEvent]:
    """A recorded history as the feed hands it out."""
    turn = ""
    for version, row in enumerate(json.loads(path.read_text())["events"], start=1):
        stored = EventRow(
            row["saga_id"], version, row["type"], row["node"], row["attempt"], 1, row["data"],
            META, NOON, b"", version,
        )  # fmt: skip
        yield FeedEvent(stored, path.stem, 1, "request-7", "key-1", None, {"country": "CH"}, turn)
        turn = row["type"] if row["type"] in _TURNS else turn


# ---------------------------------------------------------------------------- generated


def test_the_files_are_what_the_code_generates(capsys: pytest.CaptureFixture[str]) -> None:
    assert contract.main([str(EVENTS), "--check"]) == 0, capsys.readouterr().err


def test_a_file_that_is_out_of_date_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract.main([str(tmp_path)])
    assert contract.main([str(tmp_path), "--check"]) == 0
    (tmp_path / "StateChanged.v1.json").write_text("{}")
    (tmp_path / "SagaStuck.v1.json").unlink(missing_ok=True)

    assert contract.main([str(tmp_path), "--check"]) == 1

    told = capsys.readouterr().err
    assert "SagaStuck.v1.json is out of date; run: make contract" in told
    assert told.count("out of date") == 2


def test_every_type_of_event_has_a_schema_that_is_one() -> None:
    schemas = all_schemas()
    assert set(schemas) == {*map(schema_id, PUBLISHED), STATE_ID}
    for id_, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        assert schema["$id"] == id_


# ---------------------------------------------------------------------------- true


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_is_published_of_every_recorded_history_fits_its_schema(path: Path) -> None:
    for event in published(path):
        headers = dict(headers_of(event))
        value = json.loads(value_of(event))
        schema = validator(headers["ce_dataschema"].decode())
        schema.validate(value)
        known = schema.schema["properties"]
        assert value.keys() <= known.keys()
        assert value["data"].keys() <= known["data"]["properties"].keys()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_last_state_of_every_recorded_history_is_that_of_its_fold(path: Path) -> None:
    last: dict[str, Any] = {}
    schema = validator(STATE_ID)
    for event in published(path):
        if (state := state_of(event)) is not None:
            last = json.loads(state)
            schema.validate(last)
            assert last.keys() <= schema.schema["properties"].keys()
            assert dict(state_headers_of(event))["ce_dataschema"].decode() == STATE_ID
    events = [contract_event(event) for event in published(path)]
    folded = fold("x", events)
    assert last["status"] == folded.status
    assert last.get("output") == (None if folded.result is None else json.loads(folded.result))


def contract_event(event: FeedEvent) -> ev.Event:
    from orchestrator.adapters.codec import JsonCodec

    return JsonCodec().decode_event(event.row)


def test_a_value_that_is_not_as_promised_does_not_fit() -> None:
    [event] = [e for e in published(RECORDED[0]) if e.row.version == 1]
    value = json.loads(value_of(event))
    schema = validator(schema_id("SagaStarted"))
    for change in ({"version": 0}, {"recorded_at": "noon"}, {"type": "SagaStuck"}, {"data": {}}):
        assert not schema.is_valid(value | change), change


def test_an_optional_payload_may_be_null_and_may_be_missing() -> None:
    schema = Draft202012Validator(event_schema(ev.ChildEnded)["properties"]["data"])
    assert schema.is_valid({"child_id": "c", "status": "completed", "output": None})
    assert schema.is_valid({"child_id": "c", "status": "completed"})
    assert not schema.is_valid({"child_id": "c"})


# ---------------------------------------------------------------------------- kept


RELEASED: dict[str, Any] = json.loads((EVENTS / contract.RELEASED).read_text())


@pytest.mark.parametrize("id_", sorted(RELEASED))
def test_a_schema_that_was_released_changes_only_in_ways_that_mislead_no_reader(id_: str) -> None:
    there = all_schemas()
    if id_ not in there:
        # A newer version has taken its place; readers of old records still need this one.
        assert (EVENTS / schema_file(id_)).exists()
        return
    assert breaks(RELEASED[id_], there[id_]) == []


BASE = event_schema(ev.StepFailed)


def changed(*path: str, to: Any) -> dict[str, Any]:
    schema = copy.deepcopy(BASE)
    place = schema
    for name in path[:-1]:
        place = place[name]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return schema


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (changed("properties", "node", to=None), "$.node is gone"),
        (changed("properties", "version", "type", to="string"), "$.version: type may be string"),
        (changed("properties", "type", "const", to="Other"), "const was 'StepFailed'"),
        (changed("properties", "version", "minimum", to=0), "minimum was 1 and is 0"),
        (changed("required", to=["saga_id"]), "$.version may be missing now"),
        (changed("properties", "data", "properties", "step", to=None), "$.data.step is gone"),
        (changed("$defs", "failure", "properties", "message", to=None), "message is gone"),
        (changed("properties", "node", "type", to=["string", "null"]), "$.node: type may be null"),
        (changed("properties", "node", to={}), "$.node: type may be anything"),
        (changed("properties", "data", "properties", "failure", to={}), "another thing now"),
    ],
)
def test_a_change_that_would_mislead_a_reader_is_found(new: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in breaks(BASE, new)), breaks(BASE, new)


@pytest.mark.parametrize(
    "new",
    [
        BASE,
        changed("description", to="In other words."),
        changed("properties", "since", to={"type": "string"}),
        changed("properties", "data", "properties", "hint", to={"type": "string"}),
        changed("required", to=[*BASE["required"], "since"]),
    ],
)
def test_a_change_that_adds_is_no_break(new: dict[str, Any]) -> None:
    assert breaks(BASE, new) == []


# ---------------------------------------------------------------------------- AsyncAPI


def test_the_asyncapi_document_is_one() -> None:
    official = json.loads(
        gzip.decompress((ROOT / "tests/data/asyncapi-3.0.0.json.gz").read_bytes())
    )
    found = json.loads((EVENTS / "asyncapi.json").read_text())
    problems = [error.message for error in Draft7Validator(official).iter_errors(found)]
    assert problems == []
    del found["channels"]["sagaEvents"]["address"], found["info"]["title"]
    assert not Draft7Validator(official).is_valid(found)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    found = document()
    references = list(_references(found))
    assert references
    for reference in references:
        if reference.startswith("./"):
            assert (EVENTS / reference).exists(), reference
            continue
        place: Any = found
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_the_asyncapi_document_has_a_message_for_every_type() -> None:
    channels = document()["channels"]
    assert set(channels["sagaEvents"]["messages"]) == {f"saga.{name}" for name in PUBLISHED}
    assert set(channels["sagaState"]["messages"]) == {STATE_TYPE}


def test_the_headers_of_commands_and_replies_are_those_of_the_document() -> None:
    asked = (
        '{"step":"charge","intent":"do","command":"payments.charge","topic":"payments.commands",'
        '"command_id":"x/flow/0","payload":{"cents":5}}'
    )
    sent = command_of(feed_event("x", 1, type_="RemoteRequested", data=asked), "saga.replies")
    assert sent is not None
    command = read_command(sent.value, list(sent.headers))
    answered = RemoteReply(command.command_id, "do", 1, "succeeded", Json("5"), None, "payments")
    replied = reply_record(command, answered)
    messages = document()["components"]["messages"]
    for name, record in (("command", sent), ("saga.reply", replied)):
        texts = {header: text.decode() for header, text in record.headers}
        Draft202012Validator(messages[name]["headers"]).validate(texts)
        assert set(texts) <= set(messages[name]["headers"]["properties"])


def test_the_headers_of_a_record_are_those_of_the_document() -> None:
    trait = document()["components"]["messageTraits"]["cloudEvent"]["headers"]
    [event] = [e for e in published(RECORDED[0]) if e.row.version == 1]
    for headers in (headers_of(event), state_headers_of(event)):
        texts = {name: text.decode() for name, text in headers}
        assert set(texts) == set(trait["required"])
        Draft202012Validator(trait, format_checker=FormatChecker()).validate(texts)


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            yield reference
        for inside in part.values():
            yield from _references(inside)
    elif isinstance(part, list):
        for inside in part:
            yield from _references(inside)
