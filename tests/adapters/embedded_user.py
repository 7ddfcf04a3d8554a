"""A process that uses the embedded server of a directory until its input ends.

    python -m tests.adapters.embedded_user DIR

It prints one line of JSON with what it got, and `owned` when it inherits the server later.
"""

from __future__ import annotations

import json
import sys
import threading

from orchestrator.adapters.embedded import EmbeddedServer, connect_or_start


def announce(server: EmbeddedServer, closing: threading.Event) -> None:
    while not closing.wait(0.02):
        if server.owned:
            print("owned", flush=True)
            return


def main(state_dir: str) -> None:
    closing = threading.Event()
    with connect_or_start(state_dir) as server:
        print(json.dumps({"owned": server.owned, "dsn": server.dsn()}), flush=True)
        if not server.owned:
            threading.Thread(target=announce, args=(server, closing), daemon=True).start()
        sys.stdin.read()
        closing.set()


if __name__ == "__main__":
    main(sys.argv[1])
