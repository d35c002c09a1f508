"""The PostgreSQL server that Annotomy starts for itself inside its data folder: start, adopt, recover, stop.

`<data>/postgres/` holds `pg-<version>/` (a copy of the programs), `cluster/`, `run/` (the socket), `log/`, `password`
and two lock files: `lock` serialises starts and stops; `alive` is inherited and held by the PostgreSQL processes
themselves, so that no second server ever opens the cluster, not even from another container on the same volume.
The cases and what is done in each are listed in `docs/operations/postgres.md`.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote, urlencode

from annotomy.db.private_binaries import Binaries, PrivateServerError, choose_binaries, copy_binaries
from annotomy.db.private_processes import (
    Owner,
    PidFile,
    choose_owner,
    end_orphans,
    stop_postmaster,
    works_in,
)
from annotomy.db.private_settings import HOST_BASED_AUTHENTICATION, Profile, configuration

__all__ = ["PrivateServer", "PrivateServerError"]

ROLE = "annotomy"
"""The login role and its database: no superuser, no way around row-level security."""

SOCKET_FOLDER_LIMIT_BYTES = 93
"""A socket's whole path may have 107 bytes (sockaddr_un), of which `/.s.PGSQL.5432` takes 14."""

START_TIMEOUT_S = 600.0
"""Replaying several GB of write-ahead log after a crash takes minutes; a start that fails ends at once."""

ALIVE_TIMEOUT_S = 10.0
"""How long the processes of a killed server may take to vanish after they were told to."""

CLEAN_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}


class PrivateServer:
    """One private PostgreSQL. Blocking; call it in a thread from asyncio. `start` is repeatable and adopts.

    `state_dir` takes what cannot live in the data folder: programs when it is mounted noexec, and as root everything
    when the unprivileged user cannot enter it (a closed home). Default: `/var/lib/annotomy`, `~/.local/state/annotomy`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        profile: Profile = "durable",
        binaries: Path | None = None,
        user: str | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.adopted = False
        self.pid: int | None = None
        self._profile: Profile = profile
        self._explicit = binaries
        self._user = user
        usual = Path("/var/lib/annotomy") if os.geteuid() == 0 else Path.home() / ".local/state/annotomy"
        self._state_dir = state_dir or usual
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """`<data>/postgres`, wherever it really lies."""
        return (self.data_dir / "postgres").resolve()

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    def start(self) -> str:
        """Starts or adopts the server and returns the database URL of the application's role."""
        self.make_home()
        with _locked(self.home / "lock", os.O_RDWR | os.O_CREAT):
            owner = choose_owner(self.cluster, self._user)
            version_file = self.cluster / "PG_VERSION"
            major = int(version_file.read_text()) if version_file.is_file() else None
            copies = self._copies_folder()
            chosen = choose_binaries(copies, major, self._explicit)
            running = self._running()
            if running and self._may_adopt(running, chosen):
                self.pid, self.adopted = running.pid, self._child is None
                return self._url(ROLE, running.socket_folder)
            if running:
                stop_postmaster(running.pid, self.cluster)
            self._reap()
            binaries = copy_binaries(chosen, copies, durable=self._profile == "durable")
            with self._alive() as alive:
                socket_folder = self._prepare_folders(owner)
                self._write_settings(binaries, socket_folder)
                if major is None:
                    self._initialise(binaries, owner)
                self._launch(binaries, owner, alive)
            return self._url(ROLE, str(socket_folder))

    def stop(self) -> None:
        """Fast stop of the server, whoever started it; nothing happens when none runs."""
        if not (self.data_dir / "postgres").is_dir():
            return
        with _locked(self.home / "lock", os.O_RDWR | os.O_CREAT):
            running = PidFile.read(self.cluster)
            if running and works_in(running.pid, self.cluster):
                stop_postmaster(running.pid, self.cluster)
            self._reap()
            self.pid = None

    def running_url(self) -> str | None:
        """The URL of a server that runs already, or None; starts nothing."""
        running = PidFile.read(self.cluster)
        if running is None or running.status != "ready" or not works_in(running.pid, self.cluster):
            return None
        return self._url(ROLE, running.socket_folder)

    def superuser_url(self, database: str = "postgres") -> str:
        """For administration and tests; the product itself never uses it."""
        running = self._running()
        if running is None:
            raise PrivateServerError("PostgreSQL is not running.")
        return self._url("postgres", running.socket_folder, database)

    # -- folders -----------------------------------------------------------------------------------------------------

    def make_home(self) -> None:
        """Makes the data folder and the database's place in it; repeatable, part of `start`."""
        if not self.data_dir.is_dir():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            # The unprivileged user must pass through, nobody else needs to list.
            self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        place = self.data_dir / "postgres"
        if place.is_symlink() and not place.is_dir():
            raise PrivateServerError(
                f"{place} points to {place.readlink()}, which is not there. Bring that folder back (it holds the "
                "database), or remove the link to begin with an empty database."
            )
        with _locked(self.data_dir, os.O_RDONLY):
            self._place_home(place)
        self.home.chmod(0o755)

    def _place_home(self, place: Path) -> None:
        if not place.is_dir():
            owner = choose_owner(place / "cluster", self._user)
            if os.geteuid() == 0 and not owner.can_enter(place.resolve()):
                place.symlink_to(self._outside_home(owner))
            else:
                place.mkdir()

    def _outside_home(self, owner: Owner) -> Path:
        """A new folder outside a closed home. Its name is random: an erased data folder must not find its old database."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        self._state_dir.chmod(0o711)
        if not owner.can_enter(self._state_dir / "any"):
            raise PrivateServerError(
                f"User id {owner.uid}, which runs PostgreSQL, can enter neither {self.data_dir} nor {self._state_dir}. "
                f"Open the folders above one of them (chmod o+x), or set ANNOTOMY_DATABASE_URL."
            )
        return Path(tempfile.mkdtemp(prefix=f"{self.data_dir.name or 'data'}-", dir=self._state_dir))

    def _copies_folder(self) -> Path:
        if not os.statvfs(self.home).f_flag & os.ST_NOEXEC:
            return self.home
        folder = self._state_dir / "programs"
        folder.mkdir(parents=True, exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            raise PrivateServerError(
                f"Neither {self.home} nor {folder} may hold programs (both are mounted noexec). Mount one of them with "
                "exec, or set ANNOTOMY_DATABASE_URL."
            )
        self._state_dir.chmod(0o711)
        folder.chmod(0o755)
        return folder

    def _prepare_folders(self, owner: Owner) -> Path:
        for name in ("run", "log"):
            _own(self.home / name, owner)
        run = self.home / "run"
        if len(os.fsencode(run)) <= SOCKET_FOLDER_LIMIT_BYTES:
            return run
        recorded = self.home / "socket"
        if recorded.is_file():
            folder = Path(recorded.read_text())
            # Somebody else could have made the folder after a reboot cleared it away.
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == owner.uid:
                _own(folder, owner)
                return folder
        folder = Path(tempfile.mkdtemp(prefix="annotomy-", dir=_short_folder()))
        _own(folder, owner)
        recorded.write_text(str(folder))
        return folder

    def _write_settings(self, binaries: Binaries, socket_folder: Path) -> None:
        text = configuration(binaries, self._profile, log_folder=self.home / "log", socket_folder=socket_folder)
        for name, content in (
            ("postgresql.conf", text),
            ("pg_hba.conf", HOST_BASED_AUTHENTICATION),
            ("pg_ident.conf", ""),
        ):
            (self.home / name).write_text(content)
            (self.home / name).chmod(0o644)

    # -- the cluster -------------------------------------------------------------------------------------------------

    def _initialise(self, binaries: Binaries, owner: Owner) -> None:
        """initdb, role and database under a temporary name; the cluster appears whole or not at all."""
        partial = self.home / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _own(partial, owner)
        password = self._password()
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8"]
            if binaries.major >= 17
            else ["--locale=C.UTF-8"]
        )
        read_end, write_end = os.pipe()
        try:
            os.fchown(read_end, owner.uid, owner.gid)  # else /dev/fd/N cannot be opened by the other user
            os.write(write_end, password.encode() + b"\n")
            os.close(write_end)
            self._as_owner(
                owner,
                [
                    *(binaries.tool("initdb"), "-D", str(partial), "-U", "postgres", "-E", "UTF8", "--data-checksums"),
                    *("--auth=scram-sha-256", f"--pwfile=/dev/fd/{read_end}", *locale),
                    *(["--no-sync"] if self._profile == "test" else []),
                ],
                pass_fds=(read_end,),
            )
        finally:
            os.close(read_end)
        # Single-user mode needs no client and leaves no moment in which the server runs without the role.
        self._as_owner(
            owner,
            [binaries.tool("postgres"), "--single", "-D", str(partial), *self._files(), "-j", "postgres"],
            sent=f"create role {ROLE} login nosuperuser nobypassrls nocreatedb nocreaterole password '{password}'\n;\n\n"
            f"create database {ROLE} owner {ROLE}\n;\n\n",
        )
        partial.rename(self.cluster)

    def _password(self) -> str:
        """The generated password of both roles; whoever may read the file may read the cluster beside it."""
        file = self.home / "password"
        if not file.is_file():
            partial = self.home / "password.partial"
            partial.unlink(missing_ok=True)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as opened:
                opened.write(secrets.token_urlsafe(32))
                opened.flush()
                os.fsync(opened.fileno())
            partial.rename(file)
        return file.read_text().strip()

    def _launch(self, binaries: Binaries, owner: Owner, alive: int) -> None:
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)  # stale: `alive` is ours
        log = self.home / "start.log"
        with log.open("wb") as opened:
            self._child = subprocess.Popen(
                [binaries.tool("postgres"), "-D", str(self.cluster), *self._files()],
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                cwd="/",
                env=CLEAN_ENVIRONMENT,
                umask=0o077,
                pass_fds=(alive,),
                start_new_session=True,  # Ctrl-C must reach Annotomy first, which then drains
                user=owner.switch_uid,
                group=owner.switch_gid,
                extra_groups=owner.switch_groups,
            )
        self.pid, self.adopted = self._child.pid, False
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                told = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                self._child, self.pid = None, None
                raise PrivateServerError(f"PostgreSQL did not start. It said ({log}):\n{told}")
            written = PidFile.read(self.cluster)
            if written and written.pid == self._child.pid and written.status == "ready":
                return
            time.sleep(0.005)
        raise PrivateServerError(
            f"PostgreSQL was not ready after {START_TIMEOUT_S:.0f} s; see {log} and {self.home}/log"
        )

    def _files(self) -> list[str]:
        named = {"config_file": "postgresql.conf", "hba_file": "pg_hba.conf", "ident_file": "pg_ident.conf"}
        return [part for key, name in named.items() for part in ("-c", f"{key}={self.home / name}")]

    def _as_owner(self, owner: Owner, command: list[str], *, sent: str = "", pass_fds: tuple[int, ...] = ()) -> None:
        done = subprocess.run(
            command,
            input=sent.encode(),
            capture_output=True,
            cwd="/",
            env=CLEAN_ENVIRONMENT,
            umask=0o077,
            pass_fds=pass_fds,
            check=False,
            user=owner.switch_uid,
            group=owner.switch_gid,
            extra_groups=owner.switch_groups,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode(errors="replace").splitlines()[-12:]
            raise PrivateServerError(f"{Path(command[0]).name} failed:\n" + "\n".join(said))

    # -- who runs already --------------------------------------------------------------------------------------------

    def _running(self) -> PidFile | None:
        """The running server once it is ready; None when there is none (a server that is stopping is waited for)."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            written = PidFile.read(self.cluster)
            if written is None or not works_in(written.pid, self.cluster):
                return None
            if written.status == "ready":
                return written
            time.sleep(0.02)
        raise PrivateServerError(f"PostgreSQL in {self.cluster} has been starting or stopping for too long.")

    def _may_adopt(self, running: PidFile, chosen: Binaries) -> bool:
        if not (Path(running.socket_folder) / ".s.PGSQL.5432").exists():
            return False  # a cleaner of /tmp took the socket away: nobody could connect
        name = re.search(r"/pg-([\d.]+)/", str(Path(f"/proc/{running.pid}/exe").readlink()))
        return name is None or tuple(map(int, name[1].split("."))) >= chosen.version

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    @contextlib.contextmanager
    def _alive(self) -> Generator[int]:
        """The lock that PostgreSQL's processes inherit. Having it proves that none of them is left, in any container."""
        end_orphans(self.cluster)
        descriptor = os.open(self.home / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + ALIVE_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise PrivateServerError(
                            f"The database in {self.home} is in use by a server that this machine cannot see (another "
                            "container on the same volume?). Stop that one, or use another data folder."
                        ) from None
                    time.sleep(0.02)
            yield descriptor
        finally:
            os.close(descriptor)

    def _url(self, role: str, socket_folder: str, database: str = ROLE) -> str:
        where = urlencode({"host": socket_folder, "port": 5432}, quote_via=quote)
        return f"postgresql://{role}:{quote(self._password(), safe='')}@/{database}?{where}"


@contextlib.contextmanager
def _locked(path: Path, flags: int) -> Generator[None]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _own(folder: Path, owner: Owner) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, owner.uid, owner.gid)
    folder.chmod(0o700)


def _short_folder() -> Path:
    """Where a socket folder of short name may lie: the user's runtime folder, which root's unprivileged user cannot enter."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    if named and os.geteuid() != 0 and len(os.fsencode(named)) <= SOCKET_FOLDER_LIMIT_BYTES - len("/annotomy-12345678"):
        return Path(named)
    return Path("/tmp")  # noqa: S108
