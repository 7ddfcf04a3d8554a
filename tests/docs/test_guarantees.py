"""Every promise says how it is kept, what proves it, and what it does not cover."""

from __future__ import annotations

import re

import pytest

from orchestrator import errors
from orchestrator.domain.events import EVENT_TYPES
from tests.docs.pages import DOCS, ROOT, Page
from tests.docs.test_guides import every_test

PROMISES = Page(DOCS / "guarantees.md")
RUN = "What a quarter of an hour of faults showed"
TITLES = [found for found in re.findall(r"^## (.+)$", PROMISES.text, re.MULTILINE) if found != RUN]
PART = re.compile(r"^- \*\*(Kept by|Proved by|Not covered)\*\*", re.MULTILINE)


@pytest.mark.parametrize("title", TITLES)
def test_a_promise_has_its_parts_and_names_tests_that_exist(title: str) -> None:
    section = PROMISES.section(title)
    promise, *parts = PART.split(section)

    assert re.fullmatch(r"\s*\*.+\*\s*", promise, re.DOTALL), (
        "a promise is one paragraph in italics"
    )
    assert parts[::2] == ["Kept by", "Proved by", "Not covered"]
    assert re.findall(r"`(test_\w+)`", parts[3]), "nothing proves it"


def test_every_test_that_is_named_exists() -> None:
    assert set(re.findall(r"`(test_\w+)`", PROMISES.text)) - every_test() == set()


def test_every_event_and_error_that_is_named_exists() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", PROMISES.text))
    assert {
        name for name in named if name not in EVENT_TYPES and not hasattr(errors, name)
    } == set()


def test_people_find_it_from_the_readme_and_from_operations() -> None:
    assert "docs/guarantees.md" in Page(ROOT / "README.md").links
    assert "guarantees.md" in Page(DOCS / "operations.md").links
