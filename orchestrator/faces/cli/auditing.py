"""Commands that check what is stored: replay, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.faces.cli.common import Json, SagaId, application, out, progress, run, tell


def replay(saga_id: SagaId, json: Json = False) -> None:
    """Fold the history again, without any effect, and compare it with the row; exit 1 if it differs.

    Example: saga replay 0199c2e4
    """

    async def work() -> bool:
        async with application() as app:
            done = await app.orchestrator.replay(saga_id)
        if json:
            tell({"id": done.saga_id, "events": done.events, "folded": str(done.folded),
                  "stored": str(done.stored), "agrees": done.agrees})  # fmt: skip
        else:
            verdict = "agrees with" if done.agrees else "DIFFERS from"
            told = f"{done.events} events fold to {done.folded}, which {verdict} the row"
            out.print(f"{told} ({done.stored})")
        return done.agrees

    if not run(work, as_json=json):
        raise typer.Exit(1)


def verify(
    saga_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An instance; all of them if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the hash chain of one instance, or of all; exit 1 names the first event that was changed.

    Example: saga verify
    """

    async def work() -> tuple[int, int]:
        async with application() as app:
            if saga_id is not None:
                return 1, await app.orchestrator.verify(saga_id)
            total = sum((await app.store.reads.counts()).values())
            with progress(as_json=json) as bars:
                bar = bars.add_task("verifying", total=total)
                return await app.orchestrator.verify_all(
                    lambda done: bars.update(bar, completed=done)
                )

    sagas, events = run(work, as_json=json)
    if json:
        tell({"sagas": sagas, "events": events, "verified": True})
    else:
        out.print(f"{sagas} hash chains with {events} events verified")
