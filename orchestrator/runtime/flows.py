"""The live code of a `@flow`: driven from answer to answer, compared with what was recorded."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from orchestrator.domain.commands import Asked, Diverged, Failed, Outcome, ResumeFlow, Succeeded
from orchestrator.domain.definition import Primitive
from orchestrator.domain.events import Failure
from orchestrator.domain.flow import Flow, Request
from orchestrator.domain.outcomes import failure_of
from orchestrator.domain.saga import expand
from orchestrator.errors import InvalidInputError, OrchestratorError, StepError, UnrecordableError
from orchestrator.ports import Codec

log = logging.getLogger(__name__)

_WAYS_OUT = 100


class LiveFlow:
    """One run of a flow's code. `nodes` are the parts that it has asked for so far."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._code: Coroutine[Any, Any, Any] | None = None
        self._answered = 0
        self._ended = False
        self.nodes: list[Primitive[Any, Any]] = []

    def resume(self, command: ResumeFlow) -> Outcome | None:
        """Feed the answers; what the code wants next. None when its last request is not answered."""
        if self._code is None or self._ended or self._answered > len(command.answers):
            try:
                given = self._codec.decode(command.input, command.node.input_type)
            except InvalidInputError as error:
                return Failed(failure_of(error, permanent=True))
            self.close()
            self._code = command.node.fn(given, Flow())  # type: ignore[assignment]  # @flow takes coroutine functions only
        while self._answered < len(command.answers) or not self.nodes:
            outcome = self._step(command)
            if outcome is not None:
                # What came to its end may be asked for again, when a person has it tried again.
                self._ended = not isinstance(outcome, Asked)
                return outcome
        return None

    def _step(self, command: ResumeFlow) -> Outcome | None:
        """Feed one answer, up to the next request; None while the record has it already."""
        code, known = self._code, command.requests
        assert code is not None  # noqa: S101 - resume() has just made it
        try:
            request = self._feed(code, command)
        except StopIteration as end:
            return self._returned(command, end.value)
        except BaseException as error:  # noqa: BLE001 - user code; its failure is an outcome
            if len(self.nodes) < len(known):
                return self._diverged(command, f"{type(error).__name__}: {error}")
            return Failed(_failure(error))
        if not isinstance(request, Request):
            _close(code)
            why = (
                f"flow {command.node.name} awaits something that is not f.run, f.receive or f.sleep"
            )
            return Failed(Failure("TypeError", why, permanent=True))
        index = len(self.nodes)
        try:
            text = self._codec.encode(request.value, request.node.input_type)
        except (UnrecordableError, InvalidInputError) as error:
            return Failed(failure_of(error, permanent=True))
        self.nodes.append(expand(request.node))
        what = request.what
        if index >= len(known):
            return Asked(index, what, text)
        if known[index] != (what, text):
            return self._diverged(command, f"{what} on {text}", index)
        return None

    def _feed(self, code: Coroutine[Any, Any, Any], command: ResumeFlow) -> object:
        if not self.nodes:
            return code.send(None)
        answer = command.answers[self._answered]
        node = self.nodes[self._answered]
        self._answered += 1
        if isinstance(answer, Failure):
            error = StepError(
                f"{answer.type}: {answer.message}", answer.type, answer.kinds,
                permanent=answer.permanent,
            )  # fmt: skip
            error.failure = answer
            return code.throw(error)
        return code.send(self._codec.decode(answer, node.output_type))

    def _returned(self, command: ResumeFlow, value: object) -> Outcome:
        if len(self.nodes) < len(command.requests):
            return self._diverged(command, "the end of the code")
        try:
            return Succeeded(self._codec.encode(value, command.node.output_type))
        except (UnrecordableError, InvalidInputError) as error:
            return Failed(failure_of(error, permanent=True))

    def _diverged(self, command: ResumeFlow, found: str, index: int | None = None) -> Diverged:
        place = len(self.nodes) if index is None else index
        request, text = command.requests[place]
        self.close()
        return Diverged(place, f"{request} on {text}", found)

    def close(self) -> None:
        """Let go of the code, wherever it stands."""
        if self._code is not None:
            _close(self._code)
        self._code, self._answered, self._ended, self.nodes = None, 0, False, []


def _close(code: Coroutine[Any, Any, Any]) -> None:
    """End *code* where it stands, whatever it does on its way out: nobody listens any more."""
    for _ in range(_WAYS_OUT):
        try:
            code.close()
        except BaseException as error:  # noqa: BLE001 - user code, in a `finally` of its own
            # It may ask for something in there, as `finally: await f.run(...)` does: once for each.
            log.debug("the code of a flow, on its way out: %s", error)
        else:
            return


def _failure(error: BaseException) -> Failure:
    """A failed part that the code let through keeps the failure that it had."""
    if isinstance(error, StepError) and isinstance(error.failure, Failure):
        return error.failure
    return failure_of(error, permanent=isinstance(error, OrchestratorError))
