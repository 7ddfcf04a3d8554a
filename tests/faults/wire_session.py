"""One client's session behind a wire proxy: every message is looked at, and what is planned done."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.faults.faults import Deed, Fault, Point
from tests.faults.wire import Conversation, messages, read_opening

if TYPE_CHECKING:
    from tests.faults.wire_proxy import WireProxy

_CHUNK = 1 << 18


class Wire:
    """One client's connection, and ours to the server for it."""

    def __init__(
        self, proxy: WireProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._talk = Conversation("")
        self._after: list[Fault] = []
        self._mute: list[Fault] = []
        self._count = 0
        self._port: int = (writer.get_extra_info("peername") or ("", 0))[1]

    @property
    def session(self) -> str:
        """The client's application_name."""
        return self._talk.session

    def cut(self) -> None:
        """End both connections at once; what is under way is lost."""
        self._client[1].transport.abort()
        if self._server is not None:
            self._server[1].transport.abort()

    async def run(self, to: tuple[str, int]) -> None:
        """Carry messages until one side goes."""
        buffer = bytearray()
        opening = await self._open(buffer)
        if opening is None:
            return
        self._server = await asyncio.open_connection(*to)
        self._server[1].write(opening)
        down = asyncio.create_task(self._down(*self._server))
        try:
            await self._up(buffer)
            # What was taken from the client goes out, though it may no longer wait for an answer.
            for fault in self._after:
                await _either(fault.answered, 5.0)
            self._server[1].close()
            closed = asyncio.ensure_future(self._server[1].wait_closed())
            # The server may go at the same moment, with an error that concerns nobody any more.
            closed.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({closed}, timeout=1.0)
        finally:
            down.cancel()
            await asyncio.wait({down})

    async def _open(self, buffer: bytearray) -> bytes | None:
        reader, writer = self._client
        while True:
            while (opening := read_opening(buffer)) is None:
                if not (data := await reader.read(_CHUNK)):
                    return None
                buffer += data
            if not opening.asks_encryption:
                break
            writer.write(b"N")
        self._talk.session = opening.session
        for fault in self._proxy.always(Deed.REFUSE, opening.session):
            if fault.take():
                return None
        await self._pass(Deed.BLACK_HOLE)
        return opening.data

    # ------------------------------------------------------------------ client to server

    async def _up(self, buffer: bytearray) -> None:
        assert self._server is not None
        reader, (_, writer) = self._client[0], self._server
        while True:
            ready = bytearray()
            for message in messages(buffer):
                if not await self._consider(message):
                    return
                ready += message
                if self._is_last(message):
                    await self._send(writer, ready)
                    return
            await self._send(writer, ready)
            if not (data := await reader.read(_CHUNK)):
                return
            buffer += data

    async def _send(self, writer: asyncio.StreamWriter, ready: bytearray) -> None:
        if ready:
            await self._pass(Deed.BLACK_HOLE, Deed.DELAY)
            await self._write(writer, bytes(ready))
            ready.clear()
            await writer.drain()

    async def _consider(self, message: bytes) -> bool:
        """Do what is planned for this message; False when the connection was cut."""
        moment = self._talk.heard_client(message)
        if moment is None:
            return True
        self._proxy.counts["statements"] += 1
        self._proxy.counts["commits"] += moment.commits
        for fault in self._proxy.faults:
            if not fault.wants(moment):
                continue
            match fault.deed:
                case Deed.CUT_BEFORE:
                    self.cut()
                    return False
                case Deed.DELAY:
                    # With all that came in the same packet: the server's own clock runs from there.
                    await _either(fault.healed, fault.seconds)
                    self._after.append(fault)
                case Deed.DROP_REPLIES | Deed.BLACK_HOLE:
                    self._mute.append(fault)
                case Deed.CALL_BEFORE if fault.act is not None:
                    fault.act(self._port)
                case _:
                    self._after.append(fault)
        return True

    def _is_last(self, message: bytes) -> bool:
        """Whether the connection is to be cut after this message of the client."""
        self._count += 1
        return any(
            fault.point is Point.MESSAGE
            and fault.at_message == self._count
            and fault.hears(self._talk.session)
            and fault.take()
            for fault in self._proxy.faults
        )

    # ------------------------------------------------------------------ server to client

    async def _down(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        writer = self._client[1]
        buffer, ready = bytearray(), bytearray()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                buffer += data
                for message in messages(buffer):
                    if self._talk.heard_server(message) and self._after and self._strike():
                        return
                    ready += message
                if ready and not self._after:
                    await self._pass(Deed.BLACK_HOLE, Deed.DROP_REPLIES, Deed.DELAY)
                    await self._write(writer, bytes(ready))
                    ready.clear()
                    await writer.drain()
            if ready:
                writer.write(bytes(ready))
            writer.close()

    def _strike(self) -> bool:
        """The answer to a statement is here: do what was planned; whether the wire was cut."""
        after, self._after = self._after, []
        for fault in after:
            if fault.deed is Deed.DELAY:
                fault.answered.set()
            elif self._talk.failed:
                # It was refused: nothing was committed that anybody could be unsure about.
                fault.take_back()
            elif fault.deed is Deed.CUT_AFTER:
                self.cut()
                return True
            elif fault.act is not None:
                fault.act(self._port)
        return False

    # ------------------------------------------------------------------ both ways

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Byte by byte while that is planned, and the rest at once."""
        sent = 0
        while sent < len(data) and (slow := self._proxy.always(Deed.TRICKLE, self._talk.session)):
            slow[0].strike()
            writer.write(data[sent : sent + 1])
            sent += 1
            await _either(slow[0].healed, slow[0].seconds)
        writer.write(data[sent:])

    async def _pass(self, *deeds: Deed) -> None:
        """Wait until what stands in the way has been healed; be late where that is planned."""
        session = self._talk.session
        for deed in deeds:
            while blocking := [
                *self._proxy.always(deed, session),
                *(f for f in self._mute if f.deed is deed and not f.healed.is_set()),
            ]:
                fault = blocking[0]
                struck = fault.point is not Point.ALWAYS or fault.strike()
                if deed is Deed.DELAY:
                    if struck:
                        await _either(fault.healed, fault.seconds)
                    break
                await fault.healed.wait()


async def _either(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
