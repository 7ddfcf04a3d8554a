"""Every page of docs/primitives is held to what it says: programs, events, signatures, refusals."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import orchestrator
from orchestrator.adapters.postgres.store import open_store
from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import EVENT_TYPES
from orchestrator.domain.waiting import Signal
from orchestrator.testing import Simulator, crash_points
from tests.docs.pages import (
    PRIMITIVES,
    ROOT,
    Example,
    Page,
    come,
    come_in_memory,
    loaded,
    pages_of_primitives,
    written,
)

PAGES = {page.name: page for page in pages_of_primitives()}
INDEX = Page(PRIMITIVES / "README.md")
ABSENT = "(not in this example)"
SECTIONS = ["Example", "Events", "On a crash", "On undo", "On replay", "Limits and refusals"]
TRANSACTIONAL = "transactional"
"""Its program needs a database, and its step is stubbed where there is none."""
REMOTE = "remote"
"""Its program needs a service elsewhere, which is stubbed."""

in_memory = pytest.mark.parametrize("name", sorted(PAGES.keys() - {TRANSACTIONAL, REMOTE}))
each_page = pytest.mark.parametrize("name", sorted(PAGES))


@pytest.fixture
def page(name: str) -> Page:
    return PAGES[name]


@pytest.fixture
def example(page: Page, tmp_path: Path) -> Iterator[Example]:
    with loaded(page, tmp_path) as found:
        yield found


# ---------------------------------------------------------------------------- the programs


@in_memory
async def test_a_program_ends_as_its_page_says_and_writes_the_events_it_names(
    page: Page, example: Example
) -> None:
    written: set[str] = set()
    for run in example.runs:
        came = await come_in_memory(example, run)
        assert came.status == run.status, f"{run.input!r}: {came}"
        written.update(came.events)
    assert_events(page, written)


@pytest.mark.parametrize("name", [TRANSACTIONAL])
async def test_a_transactional_program_does_so_on_postgres(
    page: Page, example: Example, dsn: str
) -> None:
    written: set[str] = set()
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with open_store(dsn) as store:
        async with engine.begin() as connection:
            await connection.execute(text(example.module.schema))
        for run in example.runs:
            came = await come(store, None, example, run, example.resources)
            assert came.status == run.status, f"{run.input!r}: {came}"
            written.update(came.events)
        async with engine.connect() as connection:
            left = list(await connection.scalars(text("SELECT cents FROM ledger")))
    await engine.dispose()
    assert left == [500], "what failed or was undone leaves no row"
    assert_events(page, written)


@pytest.mark.parametrize("name", [REMOTE])
def test_a_remote_program_does_so_with_a_simulated_service(page: Page, example: Example) -> None:
    written: set[str] = set()
    for run in example.runs:
        with Simulator() as sim:
            for step, stub in example.module.stubs.items():
                sim.stub(step, with_=stub)
            out = sim.run_sync(example.saga, run.input)
        assert out.status == run.status, f"{run.input!r}: {out}"
        written.update(entry.type for entry in out.events)
    assert_events(page, written)


@each_page
def test_a_program_comes_out_whole_wherever_its_process_dies(name: str, example: Example) -> None:
    stubs: dict[orchestrator.Step[Any, Any] | str, Any] = getattr(example.module, "stubs", {})
    if name == TRANSACTIONAL:
        stubs["post_payment"] = lambda cents, ctx: "payment"
    for run in example.runs:
        report = crash_points(
            example.saga,
            run.input,
            resources=example.resources,
            signals=run.signals,
            stubs=stubs,
        )
        assert report.points > 0
        assert not report.cut, f"{run.input!r}: {report}"


@pytest.mark.slow
def test_the_programs_are_accepted_by_mypy_as_strictly_as_our_own_code(tmp_path: Path) -> None:
    files = [written(page, tmp_path) for page in PAGES.values()]
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-pretty"]
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------- events


def assert_events(page: Page, written: set[str]) -> None:
    """Each event of the page's table was written, unless it is marked as absent."""
    for event, when in page.rows("Events"):
        name = event.strip("`")
        assert (name in written) != when.endswith(ABSENT), f"{name}: written {sorted(written)}"


@each_page
def test_every_event_on_a_page_exists_and_stands_in_its_table(page: Page) -> None:
    listed = {row[0].strip("`") for row in page.rows("Events")}
    assert listed
    assert listed <= EVENT_TYPES.keys()
    named = {word for word in re.findall(r"`(\w+)`", page.text) if word in EVENT_TYPES}
    known = listed | {"SagaStarted"}  # with which every history begins
    assert named <= known


def test_every_event_stands_on_some_page() -> None:
    listed = {row[0].strip("`") for page in PAGES.values() for row in page.rows("Events")}
    of_operators = {
        "ActionRefused", "CompensationSkipped", "SagaResumed", "StepResolved", "StepRetried",
    }  # fmt: skip
    of_whole_instances = {"SagaStarted", "SagaCompensated", "HistoryLimitReached"}
    assert EVENT_TYPES.keys() - listed == of_operators | of_whole_instances


# ---------------------------------------------------------------------------- what is promised


@each_page
def test_what_a_page_says_is_refused_is_refused_with_those_words(
    page: Page, example: Example
) -> None:
    names = {**vars(orchestrator), **vars(example.module)}
    rows = page.rows("Limits and refusals")
    assert rows
    for code, words in rows:
        with pytest.raises((orchestrator.DefinitionError, TypeError)) as refused:
            eval(code.strip("`"), names)  # what the page shows
        said = f"{type(refused.value).__name__}: {refused.value}"
        assert words in said, code


@each_page
def test_the_signatures_on_a_page_are_those_of_the_code(page: Page) -> None:
    [block] = page.blocks("text")
    for line in block.splitlines():
        name, written = signature_of(line)
        assert written == parameters(name), line


def signature_of(line: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The name and the parameters in a line such as `sleep(duration)`."""
    match = re.fullmatch(r"([\w.]+)\((.*)\)", line)
    assert match is not None, line
    [definition] = ast.parse(f"def f({match[2]}): ...").body
    names: dict[str, Any] = {}
    exec(compile(ast.Module([definition], []), "page", "exec"), names)  # what the page shows
    return match[1], described(names["f"])


def parameters(name: str) -> list[tuple[str, str, str]]:
    found: Any = orchestrator
    for part in name.split("."):
        found = getattr(found, part)
    described_ = described(found)
    is_method = "." in name
    return described_[1:] if is_method else described_


def described(fn: Callable[..., Any]) -> list[tuple[str, str, str]]:
    """Name, kind and default of each parameter; what stands for "left out" is spelled `...`."""
    return [
        (p.name, p.kind.description, _spelled(p.default))
        for p in inspect.signature(fn).parameters.values()
    ]


def _spelled(default: object) -> str:
    if default is inspect.Parameter.empty:
        return ""
    return "..." if type(default) is object or default is ... else repr(default)


# ---------------------------------------------------------------------------- the set of pages


def primitives() -> set[str]:
    """The public names that make a part of a flow."""
    return {
        name
        for name in orchestrator.__all__
        if (found := getattr(orchestrator, name)).__module__.startswith("orchestrator.domain.")
        and (inspect.isfunction(found) or (isinstance(found, type) and is_part(found)))
    }


def is_part(kind: type) -> bool:
    return kind is Signal or (issubclass(kind, Primitive) and kind is not Primitive)


def test_every_primitive_has_a_page_that_bears_its_name() -> None:
    assert {"Retry", "each", "flow", "Signal", "transactional"} <= primitives()
    headings = " ".join(page.heading for page in PAGES.values())
    bare = {word.lower() for word in re.findall(r"\w+", headings)}
    assert {name for name in primitives() if name.lower() not in bare} == set()


def test_every_other_public_name_of_the_language_is_explained_on_some_page() -> None:
    everything = "".join(page.text for page in PAGES.values())
    names = {
        name
        for name in orchestrator.__all__
        if getattr(orchestrator, name).__module__.startswith("orchestrator.domain.")
    }
    elsewhere = {"Primitive", "Status"}
    assert {name for name in names if name not in everything} <= elsewhere


def test_the_index_leads_to_every_page_and_to_nothing_else() -> None:
    linked = re.findall(r"^\| \[[^\]]+\]\((\S+)\)", INDEX.text, re.MULTILINE)
    assert sorted(linked) == sorted(page.path.name for page in PAGES.values())


@each_page
def test_a_page_is_short_and_says_what_every_page_says(page: Page) -> None:
    assert re.findall(r"^## (.+)$", page.text, re.MULTILINE) == SECTIONS
    assert 40 <= len(page.text.splitlines()) <= 100
    assert len(page.blocks()) == len(page.blocks("text") + page.blocks("python")) == 2
