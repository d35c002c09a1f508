"""The DICOM listener in the test's own event loop, and what speaks to it: pynetdicom in threads, dcmtk as processes."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from annotomy.actor import SYSTEM
from annotomy.dimse.peers import NewPeer, add_peer, find_peer
from annotomy.dimse.server import Deadlines, Listener
from annotomy.identity.first_start import DIMSE_USERNAME
from annotomy.identity.users import create_user
from annotomy.services import Services

OUR_TITLE = "ANNOTOMY"
PEER_TITLE = "TESTSCU"


@asynccontextmanager
async def listening(
    services: Services, *, deadlines: Deadlines | None = None, **dimse: Any
) -> AsyncGenerator[Listener]:
    """On a port that the system chose; `dimse` are settings. TESTSCU may do everything, as a service user of its own."""
    changed = msgspec.structs.replace(services.settings.dimse, port=0, **dimse)
    settings = msgspec.structs.replace(services.settings, dimse=changed)
    of_listener = Services(settings, services.db, services.blobs, services.runners, services.clock)
    async with services.db.write(SYSTEM) as tx:
        if not await tx.fetchval("select 1 from users where username = $1", DIMSE_USERNAME):
            await create_user(tx, username=DIMSE_USERNAME, password_hash=None, is_service=True)
        if not await tx.fetchval("select 1 from dimse_peers where ae_title = $1", PEER_TITLE):
            await add_peer(tx, NewPeer(PEER_TITLE))
    async with Listener(of_listener, deadlines=deadlines, drain_s=0.2) as listener:
        yield listener


@pytest.fixture
async def listener(services: Services) -> AsyncGenerator[Listener]:
    async with listening(services) as started:
        yield started


async def peer_actor(services: Services, title: str = PEER_TITLE) -> Any:
    async with services.db.read(SYSTEM) as tx:
        peer = await find_peer(tx, title, "127.0.0.1")
    assert peer is not None
    return peer.actor


async def in_thread(work: Callable[[], Any]) -> Any:
    """pynetdicom blocks; the listener runs in this loop meanwhile."""
    return await asyncio.to_thread(work)


async def dcmtk(program: str, *arguments: str, folder: Path | None = None) -> tuple[int, str]:
    """Exit status and output; skips the test where dcmtk is not installed."""
    # pynetdicom has programs of the same names, in the environment that the tests run in.
    ours = Path(sys.executable).parent
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != ours]
    found = shutil.which(program, path=os.pathsep.join(others))
    if found is None:
        pytest.skip(f"{program} of dcmtk is not installed")
    process = await asyncio.create_subprocess_exec(
        found, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode("utf-8", "replace")
