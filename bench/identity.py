"""What the check of a credential adds to a request - cached, after its few seconds of memory, and the first time - and what
the check of a permission adds to the transaction that the request has open."""

import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable

from annotomy.actor import SYSTEM, Actor
from annotomy.app import open_services
from annotomy.db.migrate import migrate
from annotomy.db.private_server import PrivateServer
from annotomy.http.peer import Peer
from annotomy.identity import sessions
from annotomy.identity.api_keys import issue_api_key
from annotomy.identity.authenticate import Authenticator
from annotomy.identity.tokens import TokenSigner
from annotomy.identity.users import create_user
from annotomy.projects.access import Permission, require
from annotomy.projects.service import create_project
from annotomy.settings import Settings
from bench.machine import ROOT, facts
from bench.measure import RESULTS

CALLS = 20_000
COLD_CALLS = 500
GOAL_MS = 0.2
"""The promise: the checks of a remembered credential and of a permission cost less than this of a request."""
PEER = Peer(address="127.0.0.1", agent="bench", is_secure=False, host="localhost", origin=None, fetch_site=None)


def run(runs: int, alone: bool) -> None:
    data = ROOT / "bench" / "work" / "identity"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    machine = facts()
    server = PrivateServer(data)
    url = server.start()
    try:
        figures = asyncio.run(_measure(Settings.from_environment({"ANNOTOMY_DATA": str(data)}), url, runs))
    finally:
        server.stop()
    for name, milliseconds in figures.items():
        print(f"{name:48}{milliseconds:10.4f} ms")
    for name in ("access token, cached", "API key, cached"):
        total = figures[name] + figures["permission"]
        assert total < GOAL_MS, f"{name}, and the permission cost {total} ms"
    RESULTS.mkdir(exist_ok=True)
    notes = "milliseconds for one call in the process itself, the median of runs; a refresh includes its synced commit"
    content = {"benchmark": "identity", "notes": notes, "machine": machine, "medians_ms": figures}
    path = RESULTS / "identity.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


async def _measure(settings: Settings, url: str, runs: int) -> dict[str, float]:
    await migrate(url)
    async with open_services(settings, url) as services:
        signer = await TokenSigner.load(services)
        async with services.db.write(SYSTEM) as tx:
            user = await create_user(tx, username="bench", password_hash=None, is_service=True)
            tx.actor = actor = Actor(user_id=user.id, name="bench")
            project = await create_project(tx, name="bench", description="")
            key = (
                await issue_api_key(tx, user_id=user.id, name="k", project_ids=None, scopes=None, expires_at=None)
            ).key
        signed_in = sessions.User(id=user.id, username="bench", is_admin=False)
        answer = await sessions.start(services, signer, signed_in, PEER, methods=["pwd"])
        refresh_tokens = [answer.refresh_token or ""]
        bearer, with_key = f"Bearer {answer.access_token}", f"Bearer {key}"
        warm, forgetful = Authenticator(services, signer), Authenticator(services, signer)

        async def cached() -> None:
            await warm.from_header(bearer, "127.0.0.1")

        async def cached_key() -> None:
            await warm.from_header(with_key, "127.0.0.1")

        async def memory_over() -> None:
            for one in forgetful._known.values():  # pyright: ignore[reportPrivateUsage] - as if five seconds went by
                one.until = 0.0
            await forgetful.from_header(bearer, "127.0.0.1")

        async def first_time() -> None:
            await Authenticator(services, signer).from_header(bearer, "127.0.0.1")

        async def refresh() -> None:
            refreshed = await sessions.refresh(services, signer, refresh_tokens[-1], PEER)
            refresh_tokens.append(refreshed.refresh_token or "")

        async with services.db.read(actor) as tx:

            async def permission() -> None:
                await require(tx, actor, Permission.STUDY_READ, project.id)

            checked = await _median(permission, CALLS // 10, runs)

        return {
            "permission": checked,
            "access token, cached": await _median(cached, CALLS, runs),
            "API key, cached": await _median(cached_key, CALLS, runs),
            "access token, session read again": await _median(memory_over, COLD_CALLS, runs),
            "access token, signature and session": await _median(first_time, COLD_CALLS, runs),
            "refresh": await _median(refresh, COLD_CALLS // 5, runs),
        }


async def _median(call: Callable[[], Awaitable[None]], calls: int, runs: int) -> float:
    """Of the mean of each run, after one that warms up."""
    means: list[float] = []
    for run in range(runs + 1):
        started = time.perf_counter()
        for _ in range(calls):
            await call()
        if run:
            means.append((time.perf_counter() - started) / calls * 1000)
    return round(statistics.median(means), 4)
