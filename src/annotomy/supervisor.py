"""What `annotomy serve` runs: PostgreSQL, the HTTP processes behind one port, job workers and the DICOM listener.

One event loop. Each child has a task that starts it, waits for its end and starts it again. PID files lie under
`<data>/run/`. SIGTERM stops in order (HTTP drained, workers, DICOM, PostgreSQL); SIGHUP exchanges the HTTP processes
one by one, the new one ready before the old one drains; when this process dies, the children see a pipe close and end,
and the next `serve` adopts PostgreSQL.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from annotomy.db.private_server import PrivateServer, PrivateServerError
from annotomy.settings import Settings

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
"""A child that lived this long begins again with the shortest pause."""

READY_TIMEOUT_S = 60.0
"""From the start of an HTTP process to its first answer, on a slow disk with cold caches."""

BIND_TIMEOUT_S = 6.0
"""The processes of a killed predecessor let go of the port within PARENT_LOST_GRACE_S."""

STOP_TIMEOUT_S = 30.0
"""For each group of children; longer than the longest answer that is drained. Then SIGKILL."""

MISUSE = 2
"""Exit status of a command that does not exist or got wrong options: trying again cures nothing."""

BACKLOG = 2048


class ServeError(Exception):
    """`serve` cannot start; the text says why and what to do."""


@dataclass(eq=False)
class Child:
    """A process that is kept running. `arguments` follow the file descriptors."""

    name: str
    arguments: list[str]
    answers: bool = False
    """Gets the listening socket and tells when it is ready."""
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    retired: bool = False
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """One `serve`. `announce` gets what a person at the terminal wants to read."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._run_dir = settings.data_dir / "run"
        self._http: list[Child] = []
        self._workers: list[Child] = []
        self._listeners: list[Child] = []
        self.answering = asyncio.Event()
        """Set once requests are answered; `address` is known from then on."""
        self.address = ""
        self.generated_password: str | None = None
        """The administrator's, when this start made one."""
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._prepared = asyncio.Event()
        self._effective: dict[str, str] = {}
        """Settings that children get by a pipe once the database is ready; the address holds a password."""
        self._listening: socket.socket | None = None
        self._private: PrivateServer | None = None
        self._postgres_keeper: asyncio.Task[None] | None = None
        self._parent_read, self._parent_write = os.pipe()  # the write end is never inherited, never written

    def stop(self) -> None:
        """Ends `run` as SIGTERM does. From the same event loop."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until `stop`, SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._make_data_folder()
        with self._only_one():
            self._listening = await self._bind()
            try:
                # Before the database: importing the application takes longest.
                self._http.append(self._start(_http_child(1)))
                url = self._settings.database.url or await self._start_postgres()
                await self._prepare(url)
                if await self._first_answer():
                    self._start_others()
                    await self._wait()
            finally:
                address_file(self._settings.data_dir).unlink(missing_ok=True)
                await self._stop_children()
                await self._stop_postgres()
                self._listening.close()
                log.info("serve.stopped")

    # -- start -------------------------------------------------------------------------------------------------------

    async def _prepare(self, url: str) -> None:
        # Imported here, for two seconds of importing are better spent while the children do theirs.
        from annotomy.audit import load_audit_key
        from annotomy.db.engine import Database
        from annotomy.db.migrate import migrate
        from annotomy.identity.first_start import ensure_first_users
        from annotomy.projects.members import bring_roles_in_step

        await migrate(url)
        audit_key = await load_audit_key(self._settings.data_dir, self._settings.audit.key)
        db = await Database.connect(url, pool_size=1, audit_key=audit_key)
        try:
            await bring_roles_in_step(db)
            password = await ensure_first_users(db, self._settings.admin)
        finally:
            await db.close()
        self.generated_password = password
        if password is not None:
            self._announce(f"Administrator: {self._settings.admin.username}  password: {password}  (shown only once)")
        metrics = self._run_dir / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        self._effective = {
            "ANNOTOMY_DATABASE_URL": url,
            "ANNOTOMY_LOG_LEVEL": self._settings.log_level,
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }
        self._prepared.set()

    async def _bind(self) -> socket.socket:
        http = self._settings.http
        family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
        deadline = time.monotonic() + BIND_TIMEOUT_S
        while True:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((http.host, http.port))
                listening.listen(BACKLOG)
            except OSError as error:
                listening.close()
                if time.monotonic() > deadline:
                    raise ServeError(
                        f"Cannot listen on {http.host} port {http.port}: {error.strerror}. Choose another with "
                        "ANNOTOMY_HTTP_PORT, or stop the program that has it."
                    ) from error
                await asyncio.sleep(0.1)
            else:
                listening.setblocking(False)
                return listening

    async def _first_answer(self) -> bool:
        """Waits for the first HTTP process; False when a stop came before."""
        waits = [asyncio.create_task(event.wait()) for event in (self._stop, *(child.ready for child in self._http))]
        done, rest = await asyncio.wait(waits, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        if not done:
            raise ServeError("No HTTP process became ready; its reason stands above.")
        if self._stop.is_set():
            return False
        assert self._listening is not None
        host, port = self._listening.getsockname()[:2]
        log.info("serve.ready", port=port)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        address_file(self._settings.data_dir).write_text(f"{self.address}\n")
        self.answering.set()
        self._announce(f"Annotomy serves on {self.address}")
        return True

    def _start_others(self) -> None:
        """After the first answer: their imports would delay it on a small machine."""
        for number in range(2, self._settings.http.processes + 1):
            self._http.append(self._start(_http_child(number)))
        for number in range(1, self._settings.workers_inline + 1):
            self._workers.append(self._start(Child(f"worker-{number}", ["cli", "worker"])))
        if self._settings.dimse.port:
            self._listeners.append(self._start(Child("dimse", ["cli", "dimse"])))

    def _start(self, child: Child) -> Child:
        child.keeper = asyncio.create_task(self._keep(child))
        return child

    async def _wait(self) -> None:
        while not self._stop.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._stop, self._reload)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
            if self._reload.is_set() and not self._stop.is_set():
                self._reload.clear()
                await self._exchange_http()

    # -- running -----------------------------------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        """Starts the child and starts it again, ever more slowly, until it is retired."""
        pause_s = FIRST_PAUSE_S
        while not child.retired:
            began = time.monotonic()
            try:
                status = await self._run_once(child)
            except OSError as error:  # no memory or no descriptor for one more process: it may pass
                log.exception("child.not_started", child=child.name)
                status = -(error.errno or 0)
            if child.retired:
                break
            if status == MISUSE:
                log.error("child.gave_up", child=child.name, status=status)
                break
            if time.monotonic() - began > HEALTHY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            log.warning("child.died", child=child.name, status=status, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _run_once(self, child: Child) -> int:
        ready_read, ready_write = os.pipe()
        settings_read, settings_write = os.pipe()
        inherited, arguments = [self._parent_read, settings_read], list(child.arguments)
        if child.answers:
            assert self._listening is not None
            inherited += [self._listening.fileno(), ready_write]
            arguments += [str(self._listening.fileno()), str(ready_write)]
        try:
            child.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "annotomy.supervised", str(self._parent_read), str(settings_read), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=inherited,
                env={**os.environ, "ANNOTOMY_DATA": str(self._settings.data_dir)},
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which then stops in order
            )
        except OSError:
            os.close(ready_read)
            os.close(settings_write)
            raise
        finally:
            os.close(ready_write)
            os.close(settings_read)
        pid_file = self._pid_file(child.name)
        _write_pid(pid_file, child.process.pid)
        log.info("child.started", child=child.name, pid=child.process.pid)
        ended = asyncio.create_task(child.process.wait())
        told = asyncio.create_task(self._hand_over(settings_write, ready_read))
        await asyncio.wait([told, ended], return_when=asyncio.FIRST_COMPLETED)
        if told.done() and told.result():
            child.ready.set()
        status = await ended
        told.cancel()
        await asyncio.wait([told])
        os.close(ready_read)
        child.ready.clear()
        _unlink_pid(pid_file, child.process.pid)
        return status

    async def _hand_over(self, settings_write: int, ready_read: int) -> bytes:
        """Gives the child its settings when they are known; returns the byte by which it says that it answers."""
        try:
            await self._prepared.wait()
            with contextlib.suppress(BrokenPipeError):  # it died before; its status tells
                os.write(settings_write, json.dumps(self._effective).encode())
        finally:
            os.close(settings_write)
        await _until_readable(ready_read)
        return os.read(ready_read, 1)

    async def _exchange_http(self) -> None:
        """Rolling restart: the listening socket is never closed, each new process answers before an old one drains."""
        for position, old in enumerate(list(self._http)):
            new = self._start(_http_child(position + 1))
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await new.ready.wait()
            except TimeoutError:
                log.warning("serve.exchange_failed", child=new.name)
                await self._end([new])
                return
            self._http[position] = new
            await self._end([old])
        log.info("serve.exchanged", processes=len(self._http))

    async def _start_postgres(self) -> str:
        assert self._private is not None
        url = await asyncio.to_thread(self._private.start)
        log.info("postgres.ready", pid=self._private.pid, adopted=self._private.adopted)
        self._postgres_keeper = asyncio.create_task(self._keep_postgres(self._private))
        return url

    async def _stop_postgres(self) -> None:
        if self._private is None:
            return
        if self._postgres_keeper is not None:
            self._postgres_keeper.cancel()
        await asyncio.to_thread(self._private.stop)
        self._pid_file("postmaster").unlink(missing_ok=True)

    async def _keep_postgres(self, private: PrivateServer) -> None:
        """Recovers PostgreSQL whenever its postmaster is gone."""
        pause_s = FIRST_PAUSE_S
        while True:
            assert private.pid is not None
            _write_pid(self._pid_file("postmaster"), private.pid)
            began = time.monotonic()
            await _process_end(private.pid)
            log.warning("postgres.died", pid=private.pid)
            while True:
                try:
                    await asyncio.to_thread(private.start)
                except PrivateServerError as error:
                    log.warning("postgres.start_failed", reason=str(error), again_in_s=pause_s)
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                else:
                    break
            if time.monotonic() - began > HEALTHY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            log.info("postgres.recovered", pid=private.pid)

    # -- stop --------------------------------------------------------------------------------------------------------

    async def _stop_children(self) -> None:
        for group in (self._http, self._workers, self._listeners):
            await self._end(group)

    async def _end(self, children: list[Child]) -> None:
        for child in children:
            child.retired = True
            if child.process is not None and child.process.returncode is None:
                child.process.terminate()
            elif child.keeper is not None:
                child.keeper.cancel()  # it pauses between two tries
        keepers = [child.keeper for child in children if child.keeper is not None]
        if not keepers:
            return
        _, late = await asyncio.wait(keepers, timeout=STOP_TIMEOUT_S)
        for child in children:
            if child.keeper in late and child.process is not None and child.process.returncode is None:
                log.warning("child.killed", child=child.name)
                child.process.kill()
        if late:
            await asyncio.wait(late)

    # -- files -------------------------------------------------------------------------------------------------------

    def _pid_file(self, name: str) -> Path:
        return self._run_dir / f"{name}.pid"

    def _make_data_folder(self) -> None:
        if self._settings.database.url is None:
            self._private = PrivateServer(self._settings.data_dir, binaries=self._settings.postgres_bin)
            self._private.make_home()
        self._run_dir.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _only_one(self) -> Generator[None]:
        """`server.pid`, locked as long as this process lives: one `serve` for a data folder."""
        path = self._pid_file("server")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServeError(
                    f"Annotomy serves from {self._settings.data_dir} already (process {path.read_text().strip()})."
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
            path.unlink()
        finally:
            os.close(descriptor)


def address_file(data_dir: Path) -> Path:
    """Says where the running `serve` answers, for commands on the same machine (the port may be the system's choice)."""
    return data_dir / "run" / "address"


def _http_child(number: int) -> Child:
    return Child(f"http-{number}", ["http"], answers=True)


async def _process_end(pid: int) -> None:
    """Waits for any process to end, a child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await _until_readable(descriptor)
    finally:
        os.close(descriptor)


async def _until_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    turned = asyncio.Event()
    loop.add_reader(descriptor, turned.set)
    try:
        await turned.wait()
    finally:
        loop.remove_reader(descriptor)


def _write_pid(path: Path, pid: int) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(f"{pid}\n")
    partial.rename(path)


def _unlink_pid(path: Path, pid: int) -> None:
    """Unless a successor wrote its own."""
    if path.is_file() and path.read_text().strip() == str(pid):
        path.unlink()
