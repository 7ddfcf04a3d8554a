"""What a module that `--sagas` names gives to a worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator.catalogue import load_catalogue
from orchestrator.errors import InvalidInputError

_SAGA = """
from orchestrator import Saga, WorkflowContext, step

class Bank: ...

@step
async def pay(cents: int, ctx: WorkflowContext) -> int:
    return cents

shop = Saga("shop", 1, pay)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of one's own, in the directory where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "catalogue_of_a_shop.py"
    sys.modules.pop("catalogue_of_a_shop", None)


def opened(module: Path, text: str) -> Mapping[type, object]:
    module.write_text(_SAGA + text)
    [opens] = load_catalogue([module.stem]).resources

    async def look() -> Mapping[type, object]:
        async with opens("postgresql://nowhere") as resources:
            return dict(resources)

    return asyncio.run(look())


def test_resources_may_be_a_plain_mapping(module: Path) -> None:
    resources = opened(module, "bank = Bank()\nresources = {Bank: bank}\n")
    assert {kind.__name__ for kind in resources} == {"Bank"}


def test_resources_that_are_to_be_closed_are_a_context_manager(module: Path) -> None:
    text = """
from contextlib import asynccontextmanager

@asynccontextmanager
async def resources(dsn):
    yield {str: dsn}
"""
    assert opened(module, text) == {str: "postgresql://nowhere"}


def test_other_resources_are_refused_and_not_passed_over(module: Path) -> None:
    module.write_text(_SAGA + "resources = [Bank()]\n")
    with pytest.raises(InvalidInputError, match="resources is list; give a mapping"):
        load_catalogue([module.stem])


def test_a_module_without_resources_gives_none(module: Path) -> None:
    module.write_text(_SAGA)
    assert load_catalogue([module.stem]).resources == ()
