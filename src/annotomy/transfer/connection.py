"""How a command reaches the running server: its address, and a credential that lives as long as the command.

With `--api-key` nothing but HTTP is used, from any machine. Without, the command stands beside the server: it can read
the database's address, so it issues a key of its own for the named user and revokes it at the end. What it does is
done with that user's rights and stands under that user's name.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx

from annotomy.actor import SYSTEM, Actor
from annotomy.audit import load_audit_key
from annotomy.db.engine import Database
from annotomy.db.private_server import PrivateServer
from annotomy.identity.api_keys import issue_api_key, revoke_api_key
from annotomy.settings import Settings
from annotomy.supervisor import address_file

KEY_LIFETIME = timedelta(days=1)
"""For a command that is killed before it can revoke its key; an import of a day's length renews nothing."""

ANSWER_TIMEOUT_S = 120.0
"""The longest silence of the server that is waited for: a chunk is synced to a slow disk within it."""

T = TypeVar("T")


class TransferError(Exception):
    """The command cannot go on; the text says why and what to do."""


@contextmanager
def connect(
    settings: Settings, *, url: str | None = None, api_key: str | None = None, username: str | None = None
) -> Generator[httpx.Client]:
    """A client with address and credential. Raises TransferError."""
    address = (url or running_address(settings)).rstrip("/")
    if api_key is not None:
        with _client(address, api_key) as client:
            yield client
        return
    database_url = settings.database.url or PrivateServer(settings.data_dir).running_url()
    if database_url is None:
        raise TransferError(
            f"No running server was found for {settings.data_dir}. Start it (./run serve), or name another with"
            " --url and --api-key."
        )
    key_id, user_id, key = _in_database(
        settings, database_url, lambda db: _issue(db, username or settings.admin.username)
    )
    try:
        with _client(address, key) as client:
            yield client
    finally:
        # Where the database went away meanwhile, the key ends by its expiry.
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            _in_database(settings, database_url, lambda db: _revoke(db, user_id, key_id))


def running_address(settings: Settings) -> str:
    """What `serve` wrote when it began to answer; else where the settings let expect it."""
    told = address_file(settings.data_dir)
    if told.is_file():
        address = told.read_text().strip()
        # Listening on every address is no address to connect to.
        return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    return f"http://{settings.http.host}:{settings.http.port}"


def body_of(answer: httpx.Response) -> Any:
    """The JSON of an answer that succeeded; raises TransferError with the server's own words."""
    if answer.is_success:
        return answer.json()
    raise TransferError(problem_text(answer))


def problem_text(answer: httpx.Response) -> str:
    """In one line: what the problem says, with its status."""
    problem: Any = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    return f"{problem.get('detail') or problem.get('title') or answer.reason_phrase} (HTTP {answer.status_code})"


def _client(address: str, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    # The commands speak to the one address that they were given, never through a proxy of the environment's.
    return httpx.Client(base_url=address, headers=headers, timeout=ANSWER_TIMEOUT_S, trust_env=False)


def _in_database(settings: Settings, database_url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        audit_key = await load_audit_key(settings.data_dir, settings.audit.key)
        db = await Database.connect(database_url, pool_size=1, audit_key=audit_key)
        try:
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


async def _issue(db: Database, username: str) -> tuple[UUID, UUID, str]:
    async with db.write(SYSTEM) as tx:
        user = await tx.fetchrow(
            "select id, username from users where lower(username) = lower($1) and state = 'active'", username
        )
        if user is None:
            raise TransferError(f"There is no active user {username}; name one with --user.")
        tx.actor = Actor(user_id=user["id"], name=user["username"])
        issued = await issue_api_key(
            tx,
            user_id=user["id"],
            name="command line",
            project_ids=None,
            scopes=None,
            expires_at=datetime.now(UTC) + KEY_LIFETIME,
        )
    return issued.id, user["id"], issued.key


async def _revoke(db: Database, user_id: UUID, key_id: UUID) -> None:
    async with db.write(Actor(user_id=user_id, name="command line")) as tx:
        await revoke_api_key(tx, key_id)
