"""Data folders for tests of the private server: short paths that an unprivileged user may enter, stopped afterwards."""

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import asyncpg

from annotomy.db.private_server import PrivateServer
from annotomy.db.private_settings import Profile

PREFIX = "annotomy-pg-"


@contextlib.contextmanager
def data_folder() -> Generator[Path]:
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    root.chmod(0o711)
    try:
        yield root / "data"
    finally:
        for postgres in root.rglob("postgres"):
            if postgres.is_dir() and (postgres.resolve() / "cluster").is_dir():
                PrivateServer(postgres.parent).stop()
        shutil.rmtree(root)


def server_in(data: Path, profile: Profile = "test") -> PrivateServer:
    """The test profile may lose its last commits by a kill; tests of crashes name the durable one."""
    root = next(folder for folder in data.parents if folder.name.startswith(PREFIX))
    return PrivateServer(data, profile=profile, state_dir=root / "state")


async def remember(url: str, word: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("create table if not exists remembered (word text)")
    await connection.execute("insert into remembered values ($1)", word)
    await connection.close()


async def remembered(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["word"] for row in await connection.fetch("select word from remembered order by word")]
    finally:
        await connection.close()
