"""The guides are held to the code that they speak of, and every block of code is run or compared."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

import orchestrator
from orchestrator.adapters.event_schemas import state_schema
from orchestrator.adapters.kafka import KafkaSettings, open_publisher
from orchestrator.adapters.kafka.records import headers_of, state_of, value_of
from orchestrator.domain import events as ev
from orchestrator.domain.events import EVENT_TYPES
from orchestrator.domain.forward import _BEGINNINGS
from orchestrator.ports import Mark
from tests.docs.pages import DOCS, PRIMITIVES, ROOT, Page
from tests.feed_events import feed_event

EVERY_PAGE = [Page(path) for path in sorted(DOCS.rglob("*.md"))]
UNDONE = Page(DOCS / "what-is-undone.md")
NAMES = Page(DOCS / "coming-from-tta.md")
GROWING = Page(DOCS / "add-a-primitive.md")
KAFKA = Page(DOCS / "kafka.md")
OPERATIONS = Page(DOCS / "operations.md")


def identifier(page: Page) -> str:
    return str(page.path.relative_to(DOCS))


def every_test() -> set[str]:
    """The names of all tests there are."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


# ---------------------------------------------------------------------------- all pages


@pytest.mark.parametrize("page", EVERY_PAGE, ids=identifier)
def test_links_lead_to_files_that_exist(page: Page) -> None:
    assert [one for one in page.links if not (page.path.parent / one).exists()] == []


def test_every_block_of_code_is_held_by_a_test() -> None:
    """By this module, or the module of the page's own name; test_messaging holds those of readers."""
    held = {
        GROWING.path: 8,
        KAFKA.path: 4,
        DOCS / "testing.md": 2,
        OPERATIONS.path: 6,
        DOCS / "inbound.md": 3,
        DOCS / "consuming.md": 4,
        DOCS / "remote-participants.md": 1,
    }
    blocks = {page.path: len(page.blocks()) for page in EVERY_PAGE}
    others = {
        path: count
        for path, count in blocks.items()
        if count and path.parent != PRIMITIVES and count != held.get(path)
    }
    assert others == {}


# ---------------------------------------------------------------------------- what is undone


def situations() -> list[list[str]]:
    titles = re.findall(r"^## (.+)$", UNDONE.text, re.MULTILINE)
    return [row for title in titles for row in UNDONE.rows(title)]


def test_all_twenty_points_are_told_and_each_has_a_situation() -> None:
    told = re.findall(r"^(\d+)\. \*\*", UNDONE.section("The twenty points"), re.MULTILINE)
    assert [int(number) for number in told] == list(range(1, 21))
    assert {int(row[0]) for row in situations()} == set(range(1, 21))


def test_every_situation_names_events_and_a_test_that_exist() -> None:
    tests = every_test()
    for _, situation, _, events, test in situations():
        named = re.findall(r"`(\w+)`", events)
        assert named or events == "—", situation
        assert set(named) <= EVENT_TYPES.keys(), situation
        assert test.strip("`") in tests, test


# ---------------------------------------------------------------------------- other names


def test_every_name_of_ours_is_public_and_has_a_page_or_a_module() -> None:
    for theirs, ours, _ in NAMES.rows("Names"):
        match = re.fullmatch(r"(?:\[)?`([\w.]+)`(?:\]\((\S+)\))?", ours)
        assert match is not None, theirs
        name, page = match.groups()
        assert name in orchestrator.__all__ or name == "orchestrator.testing", theirs
        if page is not None and name != "Primitive":
            heading = Page(DOCS / page).heading
            assert name.lower() in heading.lower(), theirs


def test_what_has_no_counterpart_is_told_for_every_page_that_the_table_leaves_out() -> None:
    pages = {path.name for path in PRIMITIVES.glob("*.md")}
    assert {Path(target).name for target in NAMES.links} - {"what-is-undone.md"} == pages


# ---------------------------------------------------------------------------- adding a part


def quotes() -> list[tuple[Path, str]]:
    """The quoted files with what is quoted from them."""
    found: list[tuple[Path, str]] = []
    for block in GROWING.blocks("python"):
        head, _, code = block.partition("\n")
        found.append((ROOT / head.removeprefix("# "), code))
    return found


@pytest.mark.parametrize(("path", "code"), quotes(), ids=lambda value: getattr(value, "name", ""))
def test_what_is_quoted_stands_in_its_file(path: Path, code: str) -> None:
    assert code in path.read_text()


def test_the_guide_names_every_file_that_knows_of_its_example() -> None:
    told = {(DOCS / target).resolve() for target in GROWING.links}
    knowing = {
        path
        for path in (ROOT / "orchestrator").rglob("*.py")
        if re.search(r"\bSleep\b|\bTimerSet\b|\bTimerFired\b|\bsleep,|, sleep\n", path.read_text())
    }
    assert knowing <= told
    assert ROOT / "orchestrator" / "runtime" / "engine.py" not in knowing


def test_a_time_out_knows_every_event_by_which_something_begins_to_wait() -> None:
    begins = {kind for kind in EVENT_TYPES.values() if "due_at" in kind.__dataclass_fields__}
    go_on = {
        ev.RetryScheduled, ev.IterationScheduled, ev.StepHeld, ev.DeadlineSet, ev.DeadlineMissed,
        ev.CompensationRetryScheduled, ev.ProbeRetryScheduled,
    }  # fmt: skip
    assert begins - go_on <= set(_BEGINNINGS), "see section 4 of docs/add-a-primitive.md"


# ---------------------------------------------------------------------------- the contract of Kafka


def test_the_record_that_is_shown_has_the_fields_of_a_real_one() -> None:
    shown, _ = KAFKA.blocks("json")
    fields = json.loads(shown.replace("{...}", "{}"))
    record: dict[str, Any] = json.loads(value_of(feed_event("01977f5e", 4)))
    assert list(fields) == list(record)
    assert {name: type(value) for name, value in fields.items()} == {
        name: type(value) for name, value in record.items()
    }


def test_the_rule_for_readers_drops_the_repeats_that_are_shown() -> None:
    [shown] = KAFKA.blocks("")
    versions = [int(number) for number in re.findall(r"\d+", shown.partition("<-")[0])]
    applied: list[int] = []
    for version in versions:
        last = applied[-1] if applied else 0
        if version == last + 1:
            applied.append(version)
        else:
            assert version <= last, "something was lost"
    assert applied == list(range(1, max(versions) + 1))
    assert len(versions) > len(applied)


def test_the_state_that_is_shown_has_the_fields_of_a_real_one() -> None:
    _, shown = KAFKA.blocks("json")
    fields = json.loads(shown.replace("{...}", "{}"))
    ended = feed_event("01977f5e", 9, type_="SagaCompleted")
    state = state_of(replace(ended, key="order-7", tags={"country": "CH"}))
    assert state is not None
    assert list(fields) == list(json.loads(state))
    validator = Draft202012Validator(state_schema(), format_checker=FormatChecker())
    validator.validate(fields)


def test_every_status_that_is_published_is_told() -> None:
    told = {row[0].strip("`") for row in KAFKA.rows("Where each instance stands")}
    assert told == set(state_schema()["properties"]["status"]["enum"])


def test_every_header_of_a_record_is_told() -> None:
    told = re.findall(r"`([\w-]+)`", " ".join(row[0] for row in KAFKA.rows("A record")))
    meta = '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    assert set(told) == {name for name, _ in headers_of(feed_event("s1", 1, meta=meta))}


@pytest.mark.kafka
async def test_the_reader_that_is_shown_drops_repeats_and_refuses_gaps(
    kafka: str, tmp_path: Path
) -> None:
    [source] = KAFKA.blocks("python")
    (tmp_path / "reader.py").write_text(source)
    module = runpy.run_path(str(tmp_path / "reader.py"))
    settings, types = KafkaSettings(kafka, f"test-{uuid.uuid4()}"), ["SagaStarted", "SagaCompleted"]
    life = [feed_event("s1", n, type_=type_) for n, type_ in enumerate(types, start=1)]
    publisher = await open_publisher(settings)
    for events in (life, life, [feed_event("s2", 1, type_="SagaStarted")]):
        await publisher.publish(events, Mark(0, 0, 0))
    await publisher.close()
    reader = module["Reader"]()

    async with asyncio.timeout(60):
        await module["read"](kafka, settings.topic, f"group-{uuid.uuid4()}", reader, 3)

    assert sorted(reader.applied) == [
        ("s1", 1, "saga.SagaStarted"), ("s1", 2, "saga.SagaCompleted"), ("s2", 1, "saga.SagaStarted")
    ]  # fmt: skip
    with pytest.raises(module["GapError"], match="1 is followed by 3"):
        reader.take("s2", {"version": "3", "ce_type": "saga.SagaStuck"}, b'{"data": {}}')
