"""One real PostgreSQL for a whole test run, and a freshly migrated database for each test.

The run's folder is made by the pytest controller and named in ANNOTOMY_TEST_RUN, which xdist workers inherit: whoever
needs the server first starts it, the others adopt it, the controller stops it. ANNOTOMY_TEST_DATABASE_URL names a server
of one's own instead; its role needs CREATEDB and should be no superuser (superusers pass row-level security).
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from annotomy.db.migrate import migrate
from annotomy.db.private_server import PrivateServer

FOLDER_VARIABLE = "ANNOTOMY_TEST_RUN"
FOLDER_PREFIX = "annotomy-test-"


def begin_run() -> None:
    """In the controller: makes the run's folder, and clears those of killed runs."""
    temporary = Path(tempfile.gettempdir())
    for old in temporary.glob(f"{FOLDER_PREFIX}*"):
        owner = old / "owner"
        if owner.is_file() and owner.stat().st_uid == os.geteuid() and not Path(f"/proc/{owner.read_text()}").exists():
            _clear(old)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    folder.chmod(0o711)  # as root, the unprivileged user of PostgreSQL passes through
    (folder / "owner").write_text(str(os.getpid()))
    os.environ[FOLDER_VARIABLE] = str(folder)


def end_run() -> None:
    """In the controller: stops the server if any test started it."""
    _clear(Path(os.environ.pop(FOLDER_VARIABLE)))


def _clear(folder: Path) -> None:
    PrivateServer(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)


class TestDatabases:
    """Makes and drops databases on the run's server."""

    __test__ = False

    def __init__(self) -> None:
        own = os.environ.get("ANNOTOMY_TEST_DATABASE_URL")
        self._folder = Path(os.environ[FOLDER_VARIABLE])
        with (self._folder / "template.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if own:
                self._application_url = self._maintenance_url = own
            else:
                server = PrivateServer(self._folder, profile="test")
                self._application_url = server.start()
                self._maintenance_url = server.superuser_url()
            self._owner = urlsplit(self._application_url).username
            self._template = f"{self._folder.name}_template".replace("-", "_").lower()
            ready = self._folder / "template.ready"
            if not ready.exists():
                self._statement(f'drop database if exists "{self._template}"')
                self._statement(f'create database "{self._template}" owner "{self._owner}"')
                in_own_loop(migrate(self._url(self._template)))
                ready.touch()

    def create(self) -> str:
        """The URL of a new database with every migration applied."""
        name = f"test_{secrets.token_hex(8)}"
        self._statement(f'create database "{name}" template "{self._template}" owner "{self._owner}"')
        return self._url(name)

    def create_empty(self) -> str:
        """The URL of a new database without any table."""
        name = f"test_{secrets.token_hex(8)}"
        self._statement(f'create database "{name}" owner "{self._owner}"')
        return self._url(name)

    def drop(self, url: str) -> None:
        self._statement(f'drop database "{urlsplit(url).path.lstrip("/")}" with (force)')

    def _url(self, database: str) -> str:
        return urlunsplit(urlsplit(self._application_url)._replace(path=f"/{database}"))

    def _statement(self, sql: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self._maintenance_url)
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        in_own_loop(run())


def in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Runs it in a thread with its own event loop, so that a test's loop stays untouched."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()
