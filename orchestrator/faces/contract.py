"""Writes the contract for readers: `python -m orchestrator.faces.contract docs/events`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.adapters.asyncapi import document
from orchestrator.adapters.event_schemas import all_schemas, schema_file

RELEASED = "released.json"


def files() -> dict[str, str]:
    """Each file of the contract as this version of the package writes it, by its name."""
    schemas = {schema_file(id_): schema for id_, schema in all_schemas().items()}
    written: Mapping[str, Any] = {**schemas, "asyncapi.json": document()}
    return {name: _text(content) for name, content in written.items()}


def write(folder: Path) -> None:
    """Bring *folder* up to date. Schemas of older versions stay: readers may go by them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")


def release(folder: Path) -> None:
    """Promise the schemas as they are now; those that were promised before stay promised."""
    file = folder / RELEASED
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(_text(known | all_schemas()), "utf-8")


def _text(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` only say which differ; 1 when some do."""
    parser = argparse.ArgumentParser(prog="contract", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="only look; change nothing")
    parser.add_argument("--release", action="store_true", help="promise the schemas as they are")
    asked = parser.parse_args(arguments)
    if not asked.check:
        write(asked.folder)
        if asked.release:
            release(asked.folder)
        return 0
    stale = [name for name, text in files().items() if _found(asked.folder / name) != text]
    for name in stale:
        sys.stderr.write(f"{asked.folder / name} is out of date; run: make contract\n")
    return 1 if stale else 0


def _found(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
