"""The world outside: a process that applies effects by key, and does to its callers what it is told.

    python -m tests.chaos.ledger FOLDER

One JSON object a line, one answer a line. All that it hears and does is in FOLDER/ledger.sqlite.
It kills and stops only processes that were named to it before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import struct
import sys
import time
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE call (
    n INTEGER PRIMARY KEY, key TEXT, ref TEXT, saga TEXT, op TEXT, kind TEXT, pid INT,
    received REAL, mode TEXT, answer TEXT, struck INT DEFAULT 0, answered REAL
);
CREATE TABLE application (
    key TEXT PRIMARY KEY, ref TEXT, saga TEXT, op TEXT, kind TEXT, source TEXT, target TEXT,
    cents INT, pid INT, applied REAL, receipt TEXT, effective INT
);
"""
HARMLESS = ("ok", "hold", "fail", "refuse", "drop", "lie")
"""What may still be played once all is to heal."""


class Ledger:
    """Books, scripts, and a hand on the processes of its callers."""

    def __init__(self, folder: Path) -> None:
        self._books = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
        self._books.execute("PRAGMA journal_mode=WAL")
        self._books.execute("PRAGMA synchronous=NORMAL")
        self._books.executescript(TABLES)
        self._scripts: dict[tuple[str, str, str], list[str]] = {}
        self._employed: set[int] = set()
        self._calm = False
        self._later: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one caller until it goes."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                answer = await self._hear(json.loads(line))
                if answer is None:
                    _reset(writer)
                    return
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _hear(self, said: dict[str, Any]) -> dict[str, Any] | None:
        match said["do"]:
            case "script":
                for place, modes in said["modes"].items():
                    op, kind = place.split("/")
                    self._scripts[said["ref"], op, kind] = list(modes)
                return {"ok": True}
            case "employ":
                self._employed.add(int(said["pid"]))
                return {"ok": True}
            case "dismiss":
                self._employed.discard(int(said["pid"]))
                return {"ok": True}
            case "calm":
                self._calm = True
                return {"ok": True}
            case _:
                return await self._called(said)

    async def _called(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """One call of a step: play the mode that is next for it."""
        kind, pid = said["do"], int(said["pid"])
        mode, _, number = self._next_mode(said["ref"], said["op"], kind).partition(":")
        seconds = float(number or 0)
        row = self._books.execute(
            "INSERT INTO call (key, ref, saga, op, kind, pid, received, mode)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
            (said["key"], said["ref"], said["saga"], said["op"], kind, pid, time.time(), mode),
        ).fetchone()
        n = int(row[0])
        if mode == "kill_before":
            self._signal(n, pid, signal.SIGKILL)
            return None
        if mode in ("fail", "refuse", "drop"):
            self._note(n, mode)
            return None if mode == "drop" else {"error": mode}
        answer = self._play(said, kind, pid)
        self._note(n, str(answer.get("error") or answer["what"]))
        match mode:
            case "hold":
                await asyncio.sleep(seconds)
            case "kill_after":
                self._signal(n, pid, signal.SIGKILL)
                return None
            case "stop":
                self._stop(n, pid, seconds)
            case "lie":
                return None
            case "lie500":
                return {"error": "500"}
        self._books.execute("UPDATE call SET answered = ? WHERE n = ?", (time.time(), n))
        return answer

    def _next_mode(self, ref: str, op: str, kind: str) -> str:
        modes = self._scripts.get((ref, op, kind))
        mode = "ok"
        if modes:
            # With a star it stays: the answer may be lost, and whoever asks again must get it too.
            mode = modes[0].removesuffix("*") if modes[0].endswith("*") else modes.pop(0)
        if self._calm and mode.partition(":")[0] not in HARMLESS:
            return "ok"
        return mode

    def _note(self, n: int, answer: str) -> None:
        self._books.execute("UPDATE call SET answer = ? WHERE n = ?", (answer, n))

    # ------------------------------------------------------------------ the books

    def _play(self, said: dict[str, Any], kind: str, pid: int) -> dict[str, Any]:
        if kind == "do":
            return self._do(said, pid)
        if kind == "undo":
            return self._undo(said, pid)
        found = self._find(said["key"])
        if found is None:
            # Whoever comes late with this key is not let in: the answer stays true.
            self._write(said, said["key"], "barred", pid, "", "", 0, effective=0)
        if found is None or found[1] != "do":
            return {"what": "asked", "applied": False}
        return {"what": "asked", "applied": True, "receipt": found[0]}

    def _do(self, said: dict[str, Any], pid: int) -> dict[str, Any]:
        found = self._find(said["key"])
        if found is not None and found[1] != "do":
            return {"error": "barred"}
        if found is not None and self._find(said["key"] + "/undo") is not None:
            return {"error": "barred"}
        if found is not None:
            return {"what": "repeated", "receipt": found[0]}
        source, target, cents = said["source"], said["target"], said["cents"]
        receipt = self._write(said, said["key"], "do", pid, source, target, cents, effective=1)
        return {"what": "applied", "receipt": receipt}

    def _undo(self, said: dict[str, Any], pid: int) -> dict[str, Any]:
        found = self._find(said["key"])
        if found is not None:
            return {"what": "repeated", "receipt": found[0]}
        forward = self._books.execute(
            "SELECT source, target, cents FROM application WHERE key = ? AND kind = 'do'",
            (said["of"],),
        ).fetchone()
        if forward is None:
            if self._find(said["of"]) is None:
                self._write(said, said["of"], "barred", pid, "", "", 0, effective=0)
            forward, effective = ("", "", 0), 0
        else:
            effective = 1
        source, target, cents = forward
        receipt = self._write(
            said, said["key"], "undo", pid, target, source, cents, effective=effective
        )
        return {"what": "undone" if effective else "nothing", "receipt": receipt}

    def _find(self, key: str) -> tuple[str, str] | None:
        row = self._books.execute("SELECT receipt, kind FROM application WHERE key = ?", (key,))
        found: tuple[str, str] | None = row.fetchone()
        return found

    def _write(
        self,
        said: dict[str, Any],
        key: str,
        kind: str,
        pid: int,
        source: str,
        target: str,
        cents: int,
        *,
        effective: int,
    ) -> str:
        receipt = secrets.token_hex(8)
        who = (said["ref"], said["saga"], said["op"])
        self._books.execute(
            "INSERT INTO application VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, *who, kind, source, target, cents, pid, time.time(), receipt, effective),
        )
        return receipt

    # ------------------------------------------------------------------ the hand

    def _signal(self, n: int, pid: int, sign: signal.Signals) -> bool:
        if pid not in self._employed:
            return False
        try:
            os.kill(pid, sign)
        except ProcessLookupError:
            return False
        if sign is not signal.SIGCONT:
            self._books.execute("UPDATE call SET struck = ? WHERE n = ?", (int(sign), n))
        return True

    def _stop(self, n: int, pid: int, seconds: float) -> None:
        """Stop a caller, and let it go on later."""
        if self._signal(n, pid, signal.SIGSTOP):

            async def go_on() -> None:
                await asyncio.sleep(seconds)
                self._signal(n, pid, signal.SIGCONT)

            task = asyncio.create_task(go_on())
            self._later.add(task)
            task.add_done_callback(self._later.discard)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, so that the caller sees a lost connection and no answer."""
    linger = struct.pack("ii", 1, 0)
    plain: socket.socket | None = writer.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def main(folder: str) -> None:
    ledger = Ledger(Path(folder))
    server = await asyncio.start_server(ledger.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
