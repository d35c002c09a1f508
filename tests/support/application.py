"""The application in process over a real PostgreSQL, and clients of it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar

from annotomy.actor import SYSTEM, Actor
from annotomy.app import create_app, open_services
from annotomy.http.peer import Peer
from annotomy.identity import second_factor, sessions
from annotomy.identity.passwords import hash_password
from annotomy.identity.users import create_user
from annotomy.services import Services
from annotomy.settings import Settings

PASSWORD = "correct horse battery staple"
_BROWSER = Peer("127.0.0.1", "tests", False, "annotomy.test", None, None)
_HASH: dict[str, str] = {}
"""Of the one password of all test users, hashed once for each run: argon2id is slow on purpose."""


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncGenerator[Services]:
    settings = Settings.from_environment({"ANNOTOMY_DATA": str(tmp_path / "data")})
    async with open_services(settings, database_url) as opened:
        yield opened


@dataclass
class Application:
    """The running application; `sign_in` gives a client that sends that user's token."""

    services: Services
    client: httpx.AsyncClient
    app: Litestar

    async def add_user(self, username: str, *, is_admin: bool = False) -> Actor:
        password_hash = _HASH.get(PASSWORD) or _HASH.setdefault(PASSWORD, await hash_password(PASSWORD))
        async with self.services.db.write(SYSTEM) as tx:
            user = await create_user(tx, username=username, password_hash=password_hash, is_admin=is_admin)
        return Actor(user_id=user.id, name=username, is_admin=is_admin)

    async def headers(self, username: str) -> dict[str, str]:
        """The Authorization header of a user, made when there is none of this name.

        The session begins where a sign-in ends that proved the password: checking one takes a tenth of a second, on
        purpose, and the tests of identity do it.
        """
        async with self.services.db.read(SYSTEM) as tx:
            row = await tx.fetchrow("select id, username, is_admin from users where username = $1", username)
        if row is None:
            made = await self.add_user(username, is_admin=username == "admin")
            user = sessions.User(made.user_id, username, made.is_admin)
        else:
            user = sessions.user_of(row)
        begun = await sessions.start(
            self.services, self.app.state.signer, user, _BROWSER, methods=[second_factor.PASSWORD_METHOD]
        )
        return {"Authorization": f"Bearer {begun.access_token}"}


@pytest.fixture
async def application(services: Services) -> AsyncGenerator[Application]:
    app = create_app(services)
    asgi: Any = app  # the two libraries spell the ASGI types differently
    transport = httpx.ASGITransport(asgi, raise_app_exceptions=False)
    # One event loop for the application and its test, so that they share the database pool; the lifespan in a task of
    # its own, since pytest-asyncio ends a fixture in another task than the one that began it.
    up, down = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            up.set()
            await down.wait()

    living = asyncio.create_task(live())
    await asyncio.wait([living, asyncio.ensure_future(up.wait())], return_when=asyncio.FIRST_COMPLETED)
    async with httpx.AsyncClient(transport=transport, base_url="http://annotomy.test") as client:
        yield Application(services, client, app)
    down.set()
    await living
