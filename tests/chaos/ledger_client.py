"""How the sagas and the harness speak to the ledger."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any


class RefusedError(Exception):
    """The ledger says no, and will always."""


class BusyLedgerError(Exception):
    """The ledger did nothing; ask again."""


class Ledger:
    """One ledger by its port; a connection for each call, as short programs do it."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def do(
        self, ref: str, saga: str, op: str, key: str, source: str, target: str, cents: int
    ) -> str:
        """Move money; the receipt. Applied once for a key, however often it is asked."""
        movement = {"source": source, "target": target, "cents": cents}
        answer = await self._call("do", ref, saga, op, key, movement)
        return str(answer["receipt"])

    async def undo(self, ref: str, saga: str, op: str, key: str, of: str) -> None:
        """Take a movement back; where there was none, none will be let in any more."""
        await self._call("undo", ref, saga, op, key, {"of": of})

    async def probe(self, ref: str, saga: str, op: str, key: str) -> str | None:
        """The receipt of a movement; None when there was none, and none will be let in."""
        answer = await self._call("probe", ref, saga, op, key, {})
        return str(answer["receipt"]) if answer["applied"] else None

    async def script(self, ref: str, modes: Mapping[str, Sequence[str]]) -> None:
        """What happens to the next calls of `op/kind` of *ref*, one after the other."""
        await self.say({"do": "script", "ref": ref, "modes": dict(modes)})

    async def _call(
        self, kind: str, ref: str, saga: str, op: str, key: str, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        said = {"do": kind, "ref": ref, "saga": saga, "op": op, "key": key, "pid": os.getpid()}
        answer = await self.say({**said, **more})
        match answer.get("error"):
            case None:
                return answer
            case "fail":
                raise BusyLedgerError(f"{op} of {ref}: busy")
            case "500":
                raise ConnectionError(f"{op} of {ref}: the ledger failed on the way back")
            case error:
                raise RefusedError(f"{op} of {ref}: {error}")

    async def say(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """One question, one answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(json.dumps(said).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise ConnectionResetError("the ledger hung up without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer
