"""One chaos run: warm-up, faults, healing, and until everything has ended; then the checker.

    CHAOS_SIZE=smoke CHAOS_SEED=7 python -m tests.chaos.run [FOLDER]

Exit code 0: nothing was violated, and enough was injected. Otherwise seed and folder are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.chaos.crew import ROOT
from tests.chaos.nemesis import Nemesis
from tests.chaos.scene import TOPIC, Scene, open_scene, until
from tests.chaos.sizes import Size, chosen_seed, chosen_size

AT_REST = """
SELECT count(*) AS live FROM saga
WHERE status NOT IN ('completed', 'compensated', 'terminated', 'stuck')
"""
LAG = """
SELECT greatest(p.last_value - coalesce((SELECT min(position) FROM relay_cursor), 0), 0) AS lag
FROM event_position p
"""
SESSIONS = """
SELECT application_name, state FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def play(size: Size, seed: int, folder: Path) -> dict[str, object]:
    """All phases; what the checker needs to know beside the evidence."""
    async with open_scene(size, seed, folder) as scene:
        phase = scene.nemesis.write
        phase(what="phase", phase="warm-up", seed=seed, size=size.name, broker=scene.broker.name)
        await until(lambda: _all_ready(scene), 90, "all processes are up")
        scene.begin_load()
        await asyncio.sleep(size.warm_up)
        await until(lambda: _working(scene), 30, "the first sagas end")
        phase(what="memory", rss={m.name: m.rss_mb for m in scene.crew.members})
        phase(what="phase", phase="safety")
        nemesis = Nemesis(scene)
        await nemesis.rage()
        phase(what="phase", phase="heal")
        await nemesis.heal()
        healed = time.time()
        code = await scene.end_load()
        phase(what="load ended", code=code)
        phase(what="phase", phase="liveness")
        try:
            took = await until(lambda: _at_rest(scene), size.patience, "everything ends")
            phase(what="at rest", seconds=time.time() - healed, took=took)
        except AssertionError as late:
            phase(what="late", problem=str(late))
        await scene.takeovers.settle()
        await until(lambda: _all_ready(scene), 60, "all processes are up")
        phase(what="memory", rss={m.name: m.rss_mb for m in scene.crew.members})
        await asyncio.to_thread(_replay, scene)
        for member in scene.crew.members:
            begun = time.time()
            code = await scene.crew.dismiss(member, size.drain + 5)
            phase(what="closed", who=member.name, code=code, seconds=time.time() - begun)
        await asyncio.sleep(0.3)
        left = [dict(row) for row in await scene.ask(SESSIONS)]
        phase(what="sessions", left=left)
        about = {
            "dsn": scene.dsn, "kafka": scene.broker.servers, "topic": TOPIC, "healed": healed,
            "seed": seed, "size": size.name, "floor": size.floor, "ttl": size.ttl,
            "patience": size.patience, "broker": scene.broker.name, "ended": time.time(),
            "broker_restarts": scene.broker.may_restart,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(about, indent=1), "utf-8")
        await asyncio.to_thread(_check, folder)
        return about


async def _working(scene: Scene) -> bool:
    [row] = await scene.ask("SELECT count(*) AS ended FROM saga WHERE status = 'completed'")
    return int(row["ended"]) >= 3


async def _all_ready(scene: Scene) -> bool:
    return all(member.ready for member in scene.crew.members)


async def _at_rest(scene: Scene) -> bool:
    [row], [relay] = await scene.ask(AT_REST), await scene.ask(LAG)
    return bool(row["live"] == 0 and relay["lag"] == 0)


def _replay(scene: Scene) -> None:
    """Have a few histories folded again, and all chains looked at, by the product's own commands."""
    environment = {**os.environ, "SAGA_DATABASE_URL": scene.dsn, "CHAOS_LEDGER_PORT": "0"}
    with psycopg.connect(scene.dsn) as connection:
        found = connection.execute(
            "SELECT DISTINCT ON (name, status) id::text FROM saga ORDER BY name, status, head DESC"
        ).fetchall()
    ids = random.Random(scene.seed).sample([str(row[0]) for row in found], min(len(found), 4))
    for command in [["verify"], *(["replay", saga_id] for saga_id in ids)]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        told = (done.stdout + done.stderr).strip()[-300:]
        agrees = done.returncode == 0
        scene.nemesis.write(what="replay", saga=" ".join(command), agrees=agrees, said=told)


def _check(folder: Path) -> None:
    """The checker is a program of its own, which knows nothing of ours."""
    command = [sys.executable, "-m", "tests.chaos.checker", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (folder / "checker.log").write_text(done.stdout + done.stderr, "utf-8")


def run_chaos(size: Size, seed: int, folder: Path) -> dict[str, object]:
    """Play and check; the report. Raises AssertionError when the run is red or void."""
    asyncio.run(play(size, seed, folder))
    report: dict[str, object] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def main() -> int:
    size, seed = chosen_size(), chosen_seed()
    folder = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="saga-chaos-"))
    )
    folder.mkdir(exist_ok=True)
    print(f"chaos: size {size.name}, seed {seed}, logs in {folder}", flush=True)
    report = run_chaos(size, seed, folder)
    print((folder / "report.txt").read_text("utf-8"))
    if report["verdict"] != "passed":
        print(f"{report['verdict']}: CHAOS_SIZE={size.name} CHAOS_SEED={seed}; logs in {folder}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
