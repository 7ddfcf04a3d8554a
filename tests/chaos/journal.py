"""What happened, one JSON object a line, on disk before anything else happens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Journal:
    """Appends to one file. `at` is the wall clock, as the database and the ledger have it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, **told: Any) -> None:
        """One line."""
        self._file.write(json.dumps({"at": time.time(), **told}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()
