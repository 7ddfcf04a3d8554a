"""What may change in a published schema without a new version, as docs/kafka.md says.

A reader that goes by the old schema must be right about every record of the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TOLD = {"description", "title", "$schema", "$id", "$defs"}
_LOOKED_INTO = {"properties", "required", "items", "type", "enum", "additionalProperties"}


def breaks(old: Schema, new: Schema) -> list[str]:
    """Each change from *old* to *new* that could mislead a reader, by its place."""
    return list(_breaks(old, new, "$", {"old": old, "new": new}))


def _breaks(old: Any, new: Any, place: str, roots: dict[str, Schema]) -> Iterator[str]:
    if "$ref" in old or "$ref" in new:
        # Looked into once, where it is defined.
        if old.get("$ref") != new.get("$ref"):
            yield f"{place} is another thing now"
        elif place.count(".") < 6:
            name = old["$ref"].rpartition("/")[2]
            there = (roots[which]["$defs"][name] for which in ("old", "new"))
            yield from _breaks(*there, f"{place}.({name})", roots)
        return
    for word in sorted((old.keys() | new.keys()) - _TOLD - _LOOKED_INTO):
        if old.get(word) != new.get(word):
            yield f"{place}: {word} was {old.get(word)!r} and is {new.get(word)!r}"
    for word in ("type", "enum"):
        if more := _options(new, word) - _options(old, word):
            yield f"{place}: {word} may be {', '.join(sorted(more))} now"
    for name in sorted(set(old.get("required", ())) - set(new.get("required", ()))):
        yield f"{place}.{name} may be missing now"
    for word in ("items", "additionalProperties"):
        if word in old:
            yield from _breaks(old[word], new.get(word, {}), f"{place}.{word}", roots)
    for name, schema in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{place}.{name} is gone"
        else:
            yield from _breaks(schema, new["properties"][name], f"{place}.{name}", roots)


def _options(schema: Schema, word: str) -> set[str]:
    """What a value may be; a schema that says nothing allows anything."""
    if word not in schema:
        return {"anything"}
    found = schema[word]
    return set(found) if isinstance(found, list) else {found}
