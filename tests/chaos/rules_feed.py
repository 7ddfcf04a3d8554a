"""Rules about Kafka, as `read_committed` sees it: everything once, in order, where it belongs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence, Record
from tests.chaos.rules import rule


@rule("I15")
def published(evidence: Evidence) -> Iterator[str | None]:
    """Per saga the records are the log, in order, each of them once."""
    records: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(evidence.records, key=lambda r: (r.partition, r.offset)):
        records[record.key].append(record)
    for saga, found in records.items():
        first: dict[int, Record] = {}
        for record in found:
            known = first.setdefault(record.version, record)
            if known is not record:
                same = (known.value, known.headers) == (record.value, record.headers)
                form = "twice" if same else "in two forms"
                yield f"saga {saga}: version {record.version} was published {form}"
        log = [event.version for event in evidence.by_saga.get(saga, [])]
        if list(first) != log:
            yield f"saga {saga}: the log has {log}, Kafka first saw {list(first)}"
        else:
            yield None
        yield from _forms(evidence, saga, first)
    for saga in evidence.by_saga.keys() - records.keys():
        yield f"saga {saga}: nothing of it was published"


def _forms(evidence: Evidence, saga: str, first: dict[int, Record]) -> Iterator[str | None]:
    """What was published is what the log says."""
    for event in evidence.by_saga.get(saga, []):
        record = first.get(event.version)
        if record is None:
            continue
        told = json.loads(record.value)
        columns = ("type", "node", "attempt", "epoch", "position")
        same = all(told[name] == getattr(event, name) for name in columns)
        if (
            not same
            or told["data"] != event.fact
            or dict(record.headers)["saga_id"] != saga.encode()
        ):
            yield f"saga {saga}: version {event.version} was published as something else"


@rule("I16")
def routed(evidence: Evidence) -> Iterator[str | None]:
    """All records of a saga are in one partition: murmur2 of the key, as Kafka's own default."""
    places: dict[str, set[int]] = defaultdict(set)
    for record in evidence.records:
        places[record.key].add(record.partition)
    for key, found in places.items():
        wanted = (murmur2(key.encode()) & 0x7FFFFFFF) % evidence.partitions
        yield None if found == {wanted} else f"saga {key}: in {sorted(found)}, belongs in {wanted}"


def murmur2(data: bytes) -> int:
    """Kafka's hash of keys."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    for at in range(0, len(data) - len(data) % 4, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[len(data) - len(data) % 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
