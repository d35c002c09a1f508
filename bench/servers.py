"""Our server and its peers, each started on a port and a fresh folder of its own below bench/work, and stopped again."""

import contextlib
import getpass
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import psutil

from annotomy.db.private_server import PrivateServer

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "bench" / "work"
PEERS = Path(__file__).parent / "peers"
PEER_PYTHON = WORK / "peers" / "bin" / "python"
TUS_NODE = WORK / "tus-node"
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

MOVER = "MOVER"

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 40.0


@dataclass
class Server:
    name: str
    version: str
    host: str
    port: int
    path: str
    """What comes before every path of a benchmark: the DICOMweb root, the tus collection, the API."""
    roots: list[int]
    """Processes whose trees are the server."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    project_id: str = ""
    dicom_port: int = 0
    ae_title: str = ""
    mover_port: int = 0
    """Where the AE title MOVER listens, which the server moves instances to."""
    data: Path | None = None

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in self.roots]

    def at(self, path: str) -> "Server":
        """The same server seen from another path."""
        return replace(self, path=path)


@contextlib.contextmanager
def ours(*, dicom: bool = False) -> Generator[Server]:
    """`annotomy serve` with its defaults, an administrator and one project; with `dicom`, its listener open to anyone."""
    data = _fresh("annotomy")
    port, dicom_port, password = _free_port(), _free_port() if dicom else 0, secrets.token_urlsafe(24)
    environment = {
        **os.environ,
        "ANNOTOMY_DATA": str(data),
        "ANNOTOMY_HTTP_PORT": str(port),
        "ANNOTOMY_DIMSE_PORT": str(dicom_port),
        "ANNOTOMY_DIMSE_OPEN": str(int(dicom)),
        "ANNOTOMY_ADMIN_PASSWORD": password,
        "ANNOTOMY_LOG_LEVEL": "warning",
    }
    command = [str(Path(sys.executable).with_name("annotomy")), "serve"]
    with _process(command, data, environment, lambda: _status(port, "/readyz") == 200) as pid:
        answer = _json(port, "POST", "/api/v1/auth/token", {"username": "admin", "password": password}, {})
        headers = {"Authorization": f"Bearer {answer['access_token']}"}
        project = _json(port, "POST", "/api/v1/projects", {"name": "bench"}, headers)
        postmaster = int((data / "run" / "postmaster.pid").read_text().split()[0])
        roots = [pid] if _is_below(postmaster, pid) else [pid, postmaster]
        mover_port = _free_port() if dicom else 0
        if dicom:
            _wait_for_port(dicom_port)
            add = [command[0], "dimse-peer", "add", MOVER, "--host", "127.0.0.1", "--port", str(mover_port)]
            subprocess.run(add, env=environment, check=True, stdout=subprocess.DEVNULL)
        yield Server(
            "annotomy",
            version("annotomy"),
            "127.0.0.1",
            port,
            "",
            roots,
            headers,
            str(project["id"]),
            dicom_port,
            "ANNOTOMY",
            mover_port,
            data,
        )


@contextlib.contextmanager
def orthanc(*, dicom: bool = False) -> Generator[Server]:
    """Orthanc with its DICOMweb plugin and its defaults (it syncs what it stores), without authentication.

    With `dicom`, its listener takes what anyone sends and answers C-GET.
    """
    program = shutil.which("Orthanc")
    if program is None or not ORTHANC_PLUGIN.exists():
        raise PeerMissing("Orthanc with its DICOMweb plugin")
    data = _fresh("orthanc")
    port, dicom_port, mover_port = _free_port(), *((_free_port(), _free_port()) if dicom else (0, 4242))
    configuration = {
        "Name": "bench",
        "StorageDirectory": str(data / "storage"),
        "IndexDirectory": str(data / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": dicom,
        "DicomPort": dicom_port or 4242,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"mover": [MOVER, "127.0.0.1", mover_port]},
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (data / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    with _process(
        [program, str(data / "orthanc.json")], data, dict(os.environ), lambda: _status(port, "/system") == 200
    ) as pid:
        yield Server(
            "orthanc", told, "127.0.0.1", port, "/dicom-web", [pid],
            dicom_port=dicom_port, ae_title="ORTHANC", mover_port=mover_port,
        )  # fmt: skip


@contextlib.contextmanager
def nginx(files: dict[str, bytes]) -> Generator[Server]:
    """nginx that serves these files, by name, with its defaults and one worker for each core."""
    program = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if program is None:
        raise PeerMissing("nginx")
    data, port = _fresh("nginx"), _free_port()
    root = data / "files"
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    places = "".join(
        f"{name}_temp_path {data}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (data / "nginx.conf").write_text(
        f"daemon off; user {getpass.getuser()}; worker_processes auto; pid {data}/pid; error_log {data}/error.log;\n"
        f"events {{}} http {{ access_log off; sendfile on; {places}\n"
        f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n",
        encoding="utf-8",
    )
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.rpartition("/")[2].strip()
    command = [program, "-p", str(data), "-c", str(data / "nginx.conf")]
    with _process(command, data, dict(os.environ), lambda: _status(port, "/") is not None) as pid:
        yield Server("nginx", told, "127.0.0.1", port, "", [pid])


@contextlib.contextmanager
def tus_node() -> Generator[Server]:
    """@tus/server, the reference implementation, with its file store."""
    if not (TUS_NODE / "node_modules").is_dir():
        raise PeerMissing("@tus/server")
    data, port = _fresh("tus-node-data"), _free_port()
    program = TUS_NODE / "tus.mjs"
    shutil.copy(PEERS / "tus.mjs", program)
    told = json.loads((TUS_NODE / "node_modules/@tus/server/package.json").read_text())["version"]
    command = ["node", str(program), str(port), str(data)]
    with _process(command, data, dict(os.environ), lambda: _status(port, "/files/none") is not None) as pid:
        yield Server("tus-node", told, "127.0.0.1", port, "", [pid])


@contextlib.contextmanager
def tuspyserver() -> Generator[Server]:
    with _python_peer("tuspyserver", "tuspyserver", {}) as server:
        yield server


@contextlib.contextmanager
def fastapi() -> Generator[Server]:
    """FastAPI, pydantic and SQLAlchemy's async ORM, on a PostgreSQL of the same build and settings as ours."""
    postgres = PrivateServer(_fresh("fastapi-postgres"))
    try:
        url = postgres.start()
        with _python_peer("fastapi", "annotations", {"BENCH_DATABASE_URL": url}) as server:
            if postgres.pid is not None:
                server.roots.append(postgres.pid)
            yield server
    finally:
        postgres.stop()


class PeerMissing(Exception):
    """A peer is not installed; `./run bench setup` installs it."""


@contextlib.contextmanager
def _python_peer(package: str, module: str, extra: dict[str, str]) -> Generator[Server]:
    if not PEER_PYTHON.exists():
        raise PeerMissing(package)
    data, port = _fresh(f"{package}-data"), _free_port()
    environment = {**os.environ, "BENCH_FOLDER": str(data), **extra}
    told = subprocess.run(
        [PEER_PYTHON, "-c", f"from importlib.metadata import version; print(version('{package}'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    command = [str(PEER_PYTHON), "-m", "uvicorn", "--app-dir", str(PEERS), f"{module}_app:app", "--port", str(port)]
    command += ["--log-level", "warning", "--no-access-log"]
    with _process(command, data, environment, lambda: _status(port, "/openapi.json") == 200) as pid:
        yield Server(package, told, "127.0.0.1", port, "", [pid])


@contextlib.contextmanager
def _process(
    command: list[str], folder: Path, environment: dict[str, str], answers: Callable[[], bool]
) -> Generator[int]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _fresh(name: str) -> Path:
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > until:
            raise RuntimeError("the DICOM listener did not start")
        time.sleep(0.1)


def _status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _json(port: int, method: str, path: str, body: object, headers: dict[str, str]) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        text = response.read()
        if response.status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {response.status} {text[:300]!r}")
        return json.loads(text)
    finally:
        connection.close()


def _is_below(pid: int, ancestor: int) -> bool:
    return any(parent.pid == ancestor for parent in psutil.Process(pid).parents())
