"""The wire protocol of PostgreSQL, version 3, as far as one who stands in between has to know it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104

_COMMENT = re.compile(r"--[^\n]*")
_SPACE = re.compile(r"\s+")
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|create|alter|drop|truncate|attach|setval|nextval|notify)\b",
    re.IGNORECASE,
)
_COMMITS = re.compile(r"(^|;\s*)commit\b|^end\b", re.IGNORECASE)
_BEGINS = re.compile(
    r"^\s*(begin|start transaction|rollback|abort|savepoint|release|set)\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Opening:
    """The first message of a client: what it wants, and who it says it is."""

    data: bytes
    asks_encryption: bool
    is_cancel: bool
    session: str = ""
    """The application_name."""


def read_opening(buffer: bytearray) -> Opening | None:
    """Take the first message, which has no type, off *buffer*; None while it is not complete."""
    if len(buffer) < 8:
        return None
    size, code = struct.unpack_from("!II", buffer)
    if len(buffer) < size:
        return None
    data = bytes(buffer[:size])
    del buffer[:size]
    words = data[8:].split(b"\0")
    named = dict(zip(words[::2], words[1::2], strict=False))
    name = named.get(b"application_name", b"").decode(errors="replace")
    return Opening(data, code in (_SSL, _GSS), code == _CANCEL, name)


def messages(buffer: bytearray) -> Iterator[bytes]:
    """Take the complete messages off *buffer*: a letter, the size, the rest."""
    begin = 0
    try:
        while len(buffer) - begin >= 5:
            end = begin + 1 + struct.unpack_from("!I", buffer, begin + 1)[0]
            if len(buffer) < end:
                return
            message = bytes(buffer[begin:end])
            begin = end
            yield message
    finally:
        del buffer[:begin]


@dataclass(frozen=True, slots=True)
class Moment:
    """A statement about to be run. `text` holds all statements of its transaction so far."""

    session: str
    sql: str
    text: str
    commits: bool
    """Whether something is committed by it: it is a COMMIT, or a write in a transaction of its own."""


@dataclass(slots=True)
class Conversation:
    """What one session has said: its prepared statements, and the transaction that it is in."""

    session: str
    status: str = "I"
    failed: bool = False
    _statements: dict[str, str] = field(default_factory=dict)
    _portals: dict[str, str] = field(default_factory=dict)
    _said: list[str] = field(default_factory=list)

    def heard_client(self, message: bytes) -> Moment | None:
        """Note a message of the client; the statement, when it runs one."""
        match message[:1]:
            case b"P":
                name, sql = _texts(message, 2)
                self._statements[name] = _plain(sql)
            case b"B":
                portal, name = _texts(message, 2)
                self._portals[portal] = self._statements.get(name, "")
            case b"E":
                return self._moment(self._portals.get(_texts(message, 1)[0], ""))
            case b"Q":
                return self._moment(_plain(_texts(message, 1)[0]))
        return None

    def heard_server(self, message: bytes) -> bool:
        """Note a message of the server; whether it is ready for the next request."""
        if message[:1] == b"E":
            self.failed = True
        if message[:1] == b"Z":
            self.status = message[5:6].decode()
            return True
        return False

    def _moment(self, sql: str) -> Moment:
        if self.status == "I":
            self._said = []
        self._said.append(sql)
        self.failed = False
        text = "; ".join(self._said)
        writes = _WRITES.search(text) is not None
        ends = _COMMITS.search(sql) is not None
        alone = self.status == "I" and _BEGINS.search(sql) is None
        return Moment(self.session, sql, text, commits=writes and (ends or alone))


def _texts(message: bytes, count: int) -> list[str]:
    return [part.decode(errors="replace") for part in message[5:].split(b"\0", count)[:count]]


def _plain(sql: str) -> str:
    """A statement on one line, without comments."""
    return _SPACE.sub(" ", _COMMENT.sub("", sql)).strip()
