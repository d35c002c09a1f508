"""A revocation holds everywhere within five seconds: told at once, and found out where the telling is lost."""

import asyncio
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from annotomy.errors import Unauthenticated
from annotomy.identity import authenticate
from annotomy.identity.authenticate import Authenticator
from annotomy.identity.revocation import CHANNEL
from tests.identity.people import execute, token
from tests.support.application import Application
from tests.support.serve import Serve, wait_until

LIMIT_S = 5.0
PASSWORD = "correct horse battery staple"

Change = Callable[[httpx.Client, dict[str, Any]], httpx.Response]


@pytest.fixture
def two_servers(database_url: str, tmp_path: Path) -> Generator[tuple[Serve, Serve]]:
    """Two servers with a process each, on one database: what one hears, the other has to hear from the database."""
    places = [tmp_path / "one", tmp_path / "two"]
    servers = [Serve(place, ANNOTOMY_DATABASE_URL=database_url, ANNOTOMY_HTTP_PROCESSES="1") for place in places]
    try:
        for server in servers:
            server.start()
        yield servers[0], servers[1]
    finally:
        for server in servers:
            if server.process is not None:
                server.stop()


def test_changes_on_one_server_hold_on_the_other_within_five_seconds(two_servers: tuple[Serve, Serve]) -> None:
    one, other = two_servers
    with one.client() as admin:
        made = admin.post("/api/v1/users", json={"username": "reader", "password": PASSWORD}).raise_for_status().json()
        for name, change in CHANGES.items():
            held = _sign_in(one, made["id"])
            there = httpx.Client(base_url=other.address, headers=held["headers"], timeout=30)
            with there:
                assert there.get("/api/v1/users/me").status_code == 200, "the other server remembers the session"
                began = time.monotonic()
                answer = change(admin, held)
                assert answer.is_success, (name, answer.text)
                wait_until(_answers(there, "/api/v1/users/me", 401), name, timeout_s=LIMIT_S)
                assert time.monotonic() - began < LIMIT_S
            admin.post(f"/api/v1/users/{made['id']}/activate")
        promoted = _sign_in(one, made["id"])
        with httpx.Client(base_url=other.address, headers=promoted["headers"], timeout=30) as there:
            for is_admin, expected in ((True, 200), (False, 403)):
                admin.patch(f"/api/v1/users/{made['id']}", json={"is_admin": is_admin}).raise_for_status()
                holds = _answers(there, "/api/v1/users", expected)
                wait_until(holds, f"is_admin {is_admin} holds", timeout_s=LIMIT_S)


def _answers(client: httpx.Client, path: str, status: int) -> Callable[[], bool]:
    return lambda: client.get(path).status_code == status


def _logout(admin: httpx.Client, held: dict[str, Any]) -> httpx.Response:
    return admin.post("/api/v1/auth/logout", json={"refresh_token": held["refresh_token"]})


def _suspend(admin: httpx.Client, held: dict[str, Any]) -> httpx.Response:
    return admin.post(f"/api/v1/users/{held['user_id']}/suspend")


def _end_all(admin: httpx.Client, held: dict[str, Any]) -> httpx.Response:
    return admin.delete(f"/api/v1/users/{held['user_id']}/sessions")


def _reuse(admin: httpx.Client, held: dict[str, Any]) -> httpx.Response:
    for _ in range(2):
        refreshed = admin.post("/api/v1/auth/refresh", json={"refresh_token": held["refresh_token"]}).json()
        held = {**held, "refresh_token": refreshed["refresh_token"], "first": held.get("first", held["refresh_token"])}
    reused = admin.post("/api/v1/auth/refresh", json={"refresh_token": held["first"]})
    assert reused.status_code == 401
    return admin.get("/api/v1/users/me")


CHANGES: dict[str, Change] = {
    "signed out": _logout,
    "account suspended": _suspend,
    "all sessions ended": _end_all,
    "refresh token reused": _reuse,
}


async def test_a_lost_announcement_only_delays_a_revocation(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This authenticator listens to nobody."""
    access = (await token(application, "reader"))["access_token"]
    deaf = Authenticator(application.services, application.app.state.signer)
    await deaf.from_credential(access)
    await execute(application, "update sessions set revoked_at = now()")
    await deaf.from_credential(access)  # remembered
    later = time.monotonic() + LIMIT_S
    monkeypatch.setattr(authenticate.time, "monotonic", lambda: later)
    with pytest.raises(Unauthenticated):
        await deaf.from_credential(access)


async def test_an_answer_that_was_read_before_an_announcement_is_not_remembered(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is read, then it is revoked and announced, then the answer would be remembered."""
    access = (await token(application, "reader"))["access_token"]
    services = application.services
    racing = Authenticator(services, application.app.state.signer)
    read = racing._session_actor  # pyright: ignore[reportPrivateUsage]

    async def revoked_meanwhile(claims: Any) -> Any:
        actor = await read(claims)
        await execute(application, "update sessions set revoked_at = now()")
        racing._heard(str(actor.user_id))  # pyright: ignore[reportPrivateUsage]
        return actor

    monkeypatch.setattr(racing, "_session_actor", revoked_meanwhile)
    await racing.from_credential(access)
    monkeypatch.setattr(racing, "_session_actor", read)
    with pytest.raises(Unauthenticated):
        await racing.from_credential(access)


async def test_a_lost_connection_makes_everything_be_read_again_and_listening_go_on(application: Application) -> None:
    access = (await token(application, "reader"))["access_token"]
    authenticator: Authenticator = application.app.state.authenticator
    await authenticator.from_credential(access)
    known = authenticator._known  # pyright: ignore[reportPrivateUsage]
    assert known
    connection = await asyncpg.connect(application.services.db.url)
    try:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%' and datname = current_database()"
        )
        async with asyncio.timeout(LIMIT_S):
            while known:
                await asyncio.sleep(0.01)
        await authenticator.from_credential(access)
        async with asyncio.timeout(LIMIT_S):
            while known:  # until it listens again, each announcement may be lost; then this one is heard
                await connection.execute("select pg_notify($1, user_id::text) from sessions", CHANNEL)
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def _sign_in(server: Serve, user_id: str) -> dict[str, Any]:
    body = {"username": "reader", "password": PASSWORD}
    answer = httpx.post(f"{server.address}/api/v1/auth/token", json=body, timeout=30).raise_for_status().json()
    return {**answer, "user_id": user_id, "headers": {"authorization": f"Bearer {answer['access_token']}"}}
