"""What tests of identity share: signing in with more say, and moving the database's clock by moving its rows."""

import asyncio
from typing import Any

import httpx

from annotomy.actor import SYSTEM
from tests.support.application import PASSWORD, Application

ORIGIN = {"Origin": "http://annotomy.test"}


async def token(application: Application, username: str, **headers: str) -> dict[str, Any]:
    """The token answer of a user, who is made when there is none of this name."""
    async with application.services.db.read(SYSTEM) as tx:
        known = await tx.fetchval("select 1 from users where username = $1", username)
    if not known:
        await application.add_user(username, is_admin=username == "admin")
    answer = await application.client.post(
        "/api/v1/auth/token", json={"username": username, "password": PASSWORD}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def bearer(answer: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer['access_token']}"}


async def refresh(application: Application, refresh_token: str, **headers: str) -> httpx.Response:
    return await application.client.post("/api/v1/auth/refresh", json={"refresh_token": refresh_token}, headers=headers)


async def execute(application: Application, sql: str, *values: Any) -> None:
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute(sql, *values)


async def event_types(application: Application) -> list[str]:
    async with application.services.db.read(SYSTEM) as tx:
        return [row["type"] for row in await tx.fetch("select type from events order by seq")]


async def until(application: Application, headers: dict[str, str], status: int, path: str = "/api/v1/users/me") -> None:
    """A revocation is announced by the database by itself; it takes milliseconds, and must not take five seconds."""
    async with asyncio.timeout(5):
        while (await application.client.get(path, headers=headers)).status_code != status:
            await asyncio.sleep(0.01)
