"""A wire proxy told what to do from another process: one line asks, one line of JSON answers.

cut_after_commit matching='INSERT INTO event' chance=0.05 times=all session=worker-1
send_signal KILL after matching='UPDATE saga'    to the process at the client's end
black_hole session=heartbeat      {"ok": true, "id": 2}
fired 2                           {"ok": true, "fired": 14}
report                            every fault, what it is and how often it struck; what passed
heal 2 | heal                     end one fault, or all
cut_now session=relay             {"ok": true, "cut": 3}
stop
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shlex
import signal
import socket
from pathlib import Path
from typing import Any, Self

from tests.faults.faults import Fault
from tests.faults.wire_proxy import WireProxy

PLANS = (
    "cut_before_commit", "cut_after_commit", "delay_commit", "drop_replies_of_commit",
    "at_statement", "cut_at_message", "black_hole", "drop_replies", "delay", "refuse", "trickle",
)  # fmt: skip
_NUMBERS = {"times": int, "skip": int, "chance": float, "seconds": float, "seed": int}


class Control:
    """A client of the control socket, for a harness in another process. Blocks for a moment."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._lines = self._socket.makefile("r", encoding="utf-8")

    def __call__(self, word: str, *args: object, **named: object) -> dict[str, Any]:
        """Ask; the answer. AssertionError when it was refused."""
        pairs = [f"{name}={value}" for name, value in named.items()]
        line = shlex.join([word, *map(str, args), *pairs])
        self._socket.sendall(f"{line}\n".encode())
        answer: dict[str, Any] = json.loads(self._lines.readline())
        assert answer.pop("ok"), f"{line}: {answer}"
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()


class _Controlled:
    """The server's side of it."""

    def __init__(self, proxy: WireProxy) -> None:
        self._proxy = proxy
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line after line."""
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                try:
                    answer = {"ok": True, **self._obey(*shlex.split(line.decode()))}
                except Exception as error:  # noqa: BLE001 - told to whoever asked
                    answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    def _obey(self, word: str, *words: str) -> dict[str, Any]:
        args = [text for text in words if "=" not in text]
        how = _how(dict(text.split("=", 1) for text in words if "=" in text))
        faults = self._proxy.faults
        match word:
            case "send_signal":
                return self._planned(self._send_signal(*args, **how))
            case "heal":
                self._proxy.heal([faults[int(number)] for number in args] or None)
                return {}
            case "fired":
                return {"fired": faults[int(args[0])].fired}
            case "cut_now":
                return {"cut": self._proxy.cut_now(**how)}
            case "report":
                told = [{"id": n, "what": str(f), "fired": f.fired} for n, f in enumerate(faults)]
                return {"faults": told, "passed": dict(self._proxy.counts)}
            case "stop":
                self.over.set()
                return {}
            case _ if word in PLANS:
                return self._planned(getattr(self._proxy, word)(*map(_number, args), **how))
        raise ValueError(f"there is no {word!r}")

    def _planned(self, fault: Fault) -> dict[str, Any]:
        return {"id": self._proxy.faults.index(fault)}

    def _send_signal(self, name: str, when: str = "after", **how: Any) -> Fault:
        plan = {"before": self._proxy.call_before_commit, "after": self._proxy.call_after_commit}
        return plan[when](functools.partial(send_signal, signal.Signals[f"SIG{name}"]), **how)


def send_signal(what: signal.Signals, port: int) -> None:
    """Send a signal to the process whose connection to the proxy comes from *port*."""
    if (pid := process_at(port)) is not None:
        os.kill(pid, what)


def process_at(port: int) -> int | None:
    """The process that has a TCP connection from local *port* open (Linux)."""
    wanted = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[9] != "0":
            return _holder(f"socket:[{fields[9]}]")
    return None


def _holder(inode: str) -> int | None:
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(fd.readlink()) == inode:
                return int(fd.parts[2])
    return None


def _how(named: dict[str, str]) -> dict[str, Any]:
    how: dict[str, Any] = {}
    for name, text in named.items():
        if text == "all":
            how[name] = None
        else:
            how[name] = _NUMBERS.get(name, str)(text)
    if "must_fire" in how:
        how["must_fire"] = how["must_fire"] == "True"
    return how


def _number(text: str) -> object:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


async def run(listen: int, to: str, control: int) -> None:
    """Be a proxy until told to stop, or SIGTERM."""
    proxy = WireProxy(to if ":" in to else f"127.0.0.1:{to}", port=listen)
    await proxy.start()
    controlled = _Controlled(proxy)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, controlled.over.set)
    server = await asyncio.start_server(controlled.serve, "127.0.0.1", control)
    told = {"listen": proxy.port, "control": server.sockets[0].getsockname()[1]}
    print(json.dumps(told), flush=True)
    await controlled.over.wait()
    server.close()
    await proxy.stop()


def main() -> None:
    """`--listen` and `--control` may be 0: the first line printed says which ports they became."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--to", required=True, help="a port on this machine, or host:port")
    parser.add_argument("--control", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(run(given.listen, given.to, given.control))
