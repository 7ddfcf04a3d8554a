"""Every ready saga: nothing is left undeclared, and the examples in its docstring work as they stand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import warnings
from types import ModuleType
from typing import Any

import pytest

import sagas
from orchestrator import Saga
from orchestrator.runtime.engine import definitions
from sagas import assistant, loan_approval, trip_booking
from tests.faces.cli.prompt import ROOT, environment
from tests.sagas.office import process

EVERY = [*definitions(sagas.SAGAS).values()]


@pytest.mark.parametrize("saga", EVERY, ids=lambda saga: saga.name)
def test_a_ready_saga_is_built_without_a_warning_and_strictly(saga: Saga[Any, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Saga(saga.name, saga.version, saga.body, saga.deadline)
        strict = Saga(saga.name, saga.version, saga.body, saga.deadline, strict=True)
    assert again.fingerprint == strict.fingerprint == saga.fingerprint


def test_importing_the_ready_sagas_warns_of_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import sagas; print(len(sagas.SAGAS))"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stderr, done.stdout.strip()) == ("", "6")


@pytest.mark.parametrize("saga", sagas.SAGAS, ids=lambda saga: saga.name)
def test_a_ready_saga_says_what_it_is(saga: Saga[Any, Any]) -> None:
    module = sys.modules[f"sagas.{saga.name.replace('-', '_')}"]
    assert module.__doc__
    assert module.__name__.removeprefix("sagas.") in sagas.__all__


def examples(module: ModuleType) -> list[list[str]]:
    """The commands in a docstring, as a shell would take them."""
    found = re.findall(r"^    (saga .*(?:\n     .*)*)", module.__doc__ or "", re.MULTILINE)
    return [shlex.split(command)[1:] for command in found]


def say(dsn: str, *arguments: str) -> str:
    """What `saga` answers."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT, env=environment(SAGA_SAGAS="sagas", SAGA_DATABASE_URL=dsn),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def comes_to(dsn: str, saga_id: str, event: str) -> None:
    """Wait until the history has an event of this kind."""
    limit = time.monotonic() + 20
    while event not in say(dsn, "history", saga_id):
        assert time.monotonic() < limit


@pytest.mark.parametrize("module", [trip_booking, assistant], ids=lambda module: module.__name__)
def test_its_examples_come_to_a_good_end(module: ModuleType, dsn: str) -> None:
    with process(dsn, "sagas"):
        found = examples(module)
        assert found
        for command in found:
            answer = json.loads(say(dsn, *command, "--json"))
            assert answer["status"] == "completed"


def test_the_examples_of_a_loan_go_as_far_as_the_cooling_off(dsn: str) -> None:
    small, large, signal = examples(loan_approval)
    with process(dsn, "sagas"):
        ids = [json.loads(say(dsn, *command, "--json"))["id"] for command in (small, large)]
        comes_to(dsn, ids[0], "TimerSet")
        comes_to(dsn, ids[1], "WaitStarted")
        say(dsn, *[ids[1] if word == "ID" else word for word in signal])
        comes_to(dsn, ids[1], "TimerSet")
