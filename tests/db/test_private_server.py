"""The life of a private server: first start, adoption, every kind of death, and the stop (postgres-notes 1.4)."""

import asyncio
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from annotomy.db import private_server
from annotomy.db.private_binaries import Binaries
from annotomy.db.private_processes import PidFile, processes_in
from annotomy.db.private_server import PrivateServer, PrivateServerError
from tests.db.private_data import data_folder, remember, remembered, server_in


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


async def test_a_first_start_makes_a_durable_database_that_sorts_and_searches_korean(data: Path) -> None:
    server = PrivateServer(data, state_dir=data.parent / "state")
    connection = await asyncpg.connect(server.start())
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await connection.fetchval(f"show {setting}") == "on", setting
    assert await connection.fetchval("show listen_addresses") == ""
    await connection.execute("create extension pg_trgm")
    assert len(await connection.fetchval("select show_trgm('민서')")) == 3
    await connection.close()
    assert (data / "postgres" / "password").stat().st_mode & 0o777 == 0o600
    assert (data / "postgres" / "cluster").stat().st_mode & 0o777 == 0o700
    server.stop()


async def test_nobody_connects_without_the_password(data: Path) -> None:
    url = server_in(data).start()
    password = (data / "postgres" / "password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace(password, "guessed"))


def test_two_starts_at_once_share_one_server(data: Path) -> None:
    first, second = server_in(data), server_in(data)
    with ThreadPoolExecutor() as threads:
        urls = list(threads.map(PrivateServer.start, (first, second)))
    assert urls[0] == urls[1]
    assert first.pid == second.pid
    assert [first.adopted, second.adopted].count(True) == 1


async def test_a_server_whose_parent_was_killed_is_adopted_and_can_be_stopped(data: Path) -> None:
    started = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os, sys\nfrom pathlib import Path\nfrom tests.db.private_data import server_in\n"
            "server_in(Path(sys.argv[1])).start()\nos.kill(os.getpid(), 9)",
            str(data),
        ],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert started.returncode == -signal.SIGKILL
    server = server_in(data)
    await remember(server.start(), "adopted")
    assert server.adopted
    server.stop()
    assert processes_in(server.cluster) == []
    assert await remembered(server.start()) == ["adopted"]


async def test_a_killed_postmaster_is_started_again_with_everything_committed(data: Path) -> None:
    server = server_in(data, "durable")
    await remember(server.start(), "committed")
    killed = server.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert await remembered(server.start()) == ["committed"]
    assert server.pid != killed


async def test_a_backend_that_stays_busy_after_the_kill_does_not_block_the_start(data: Path) -> None:
    server = server_in(data)
    connection = await asyncpg.connect(server.start())
    busy = asyncio.create_task(connection.execute("do $$ begin while true loop end loop; end $$"))
    watcher = await asyncpg.connect(server.superuser_url())
    while not await watcher.fetchval("select 1 from pg_stat_activity where query like 'do %' and state = 'active'"):
        await asyncio.sleep(0.01)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    began = time.monotonic()
    await remember(await asyncio.to_thread(server.start), "recovered")
    assert time.monotonic() - began < 10
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy


@pytest.mark.parametrize("whose", ["owner of the cluster", "somebody else"])
async def test_a_stale_pid_file_that_names_a_foreign_process_is_not_believed(data: Path, whose: str) -> None:
    server = server_in(data)
    await remember(server.start(), "kept")
    pid_file = server.cluster / "postmaster.pid"
    text = pid_file.read_text()
    server.stop()
    owner = server.cluster.stat()
    same = whose == "owner of the cluster" and os.geteuid() == 0
    with subprocess.Popen(["sleep", "600"], cwd="/", user=owner.st_uid if same else None) as foreign:
        pid_file.write_text(f"{foreign.pid}\n" + text.split("\n", 1)[1])
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert await remembered(server.start()) == ["kept"]
        server.stop()
        assert foreign.poll() is None
        foreign.kill()


async def test_a_stop_does_not_wait_for_connected_clients(data: Path) -> None:
    server = server_in(data)
    connection = await asyncpg.connect(server.start())
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5
    assert processes_in(server.cluster) == []
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await connection.fetchval("select 1")


def test_an_older_minor_that_runs_is_replaced_by_the_newer_one_we_bring(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_in(data)
    server.start()
    server.stop()
    newer = next(server.home.glob("pg-*"))
    older = newer.rename(server.home / f"pg-{newer.name.removeprefix('pg-').split('.')[0]}.0")
    (older / "layout.json").unlink()
    old_set = Binaries(next(older.rglob("bin/postgres")).parent, (17, 0), copied=True)
    monkeypatch.setattr(private_server, "choose_binaries", lambda *_: old_set)  # pyright: ignore[reportUnknownLambdaType]
    server.start()
    assert f"/{older.name}/" in str(Path(f"/proc/{server.pid}/exe").readlink())
    monkeypatch.undo()
    successor = server_in(data)
    successor.start()
    assert successor.pid != server.pid
    assert f"/{newer.name}/" in str(Path(f"/proc/{successor.pid}/exe").readlink())


async def test_a_data_folder_with_a_long_name_has_its_socket_elsewhere(data: Path) -> None:
    server = server_in(data / ("long-" * 12) / ("길" * 20))
    await remember(server.start(), "far away")
    recorded = Path((server.home / "socket").read_text())
    assert recorded.stat().st_mode & 0o777 == 0o700
    again = server_in(server.data_dir)
    assert await remembered(again.start()) == ["far away"]
    assert again.adopted
    server.stop()
    assert await remembered(server.start()) == ["far away"]
    assert Path((server.home / "socket").read_text()) == recorded
    server.stop()
    recorded.rmdir()


async def test_a_server_whose_socket_was_cleared_away_is_started_anew(data: Path) -> None:
    server = server_in(data)
    await remember(server.start(), "reachable")
    (server.home / "run" / ".s.PGSQL.5432").unlink()
    assert await remembered(server_in(data).start()) == ["reachable"]


def test_a_cluster_held_by_processes_out_of_sight_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_in(data)
    server.start()
    monkeypatch.setattr(private_server, "ALIVE_TIMEOUT_S", 0.1)
    # What a second container on the same volume sees: no such process, a pid file, the lock taken.
    monkeypatch.setattr(private_server, "end_orphans", lambda cluster: None)  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(private_server, "works_in", lambda pid, cluster: False)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(PrivateServerError, match="another"):
        server_in(data).start()
    assert (server.cluster / "postmaster.pid").exists()
    monkeypatch.undo()


def test_an_interrupted_first_start_leaves_nothing_behind(data: Path) -> None:
    server = server_in(data)
    (data / "postgres" / "cluster.partial" / "base").mkdir(parents=True)
    server.start()
    assert not (server.home / "cluster.partial").exists()


def test_a_failed_start_tells_what_postgresql_said(data: Path) -> None:
    server = server_in(data)
    server.start()
    server.stop()
    (server.cluster / "global" / "pg_control").unlink()
    with pytest.raises(PrivateServerError, match="pg_control"):
        server.start()


def test_a_stop_without_a_server_is_nothing(data: Path) -> None:
    server_in(data).stop()
    assert server_in(data).running_url() is None


def test_a_running_server_is_found_without_starting_one(data: Path) -> None:
    url = server_in(data).start()
    assert server_in(data).running_url() == url
    written = PidFile.read(server_in(data).cluster)
    assert written is not None
    assert pwd.getpwuid(Path(f"/proc/{written.pid}").stat().st_uid).pw_name != "root"
