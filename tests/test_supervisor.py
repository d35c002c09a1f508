"""`annotomy serve` keeps its processes alive, exchanges them without losing a request, and stops or dies cleanly."""

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from annotomy.db.private_processes import processes_in
from tests.db.private_data import data_folder
from tests.support.serve import Serve, wait_until


@pytest.fixture(scope="module")
def running() -> Iterator[Serve]:
    with data_folder() as data:
        serve = Serve(data).start()
        yield serve
        serve.stop()


@pytest.fixture
def data() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


def test_a_dead_http_process_is_replaced_while_the_other_one_answers(running: Serve) -> None:
    killed = running.pid("http-1")
    running.kill("http-1")
    assert _ready(running)
    wait_until(lambda: running.pid("http-1") != killed, "http-1 runs again")


def test_a_killed_postgresql_is_recovered(running: Serve) -> None:
    with running.client() as before:
        project = before.post("/api/v1/projects", json={"name": "before the kill"}).raise_for_status().json()
    killed = running.pid("postmaster")
    running.kill("postmaster")
    wait_until(lambda: running.pid("postmaster") != killed, "PostgreSQL runs again")
    with running.client() as after:
        assert after.get(f"/api/v1/projects/{project['id']}").raise_for_status().json()["name"] == "before the kill"


def test_a_rolling_restart_loses_no_request(running: Serve) -> None:
    old = [running.pid("http-1"), running.pid("http-2")]
    failures: list[str] = []
    answered = [0, 0, 0]
    over = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=running.address, timeout=10) as client:
            while not over.is_set():
                try:
                    client.get("/livez").raise_for_status()
                    answered[number] += 1
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for client in clients:
        client.start()
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any("serve.exchanged" in line for line in running.log), "both are exchanged", 60)
    over.set()
    for client in clients:
        client.join()
    assert failures == []
    assert min(answered) > 10
    assert not {running.pid("http-1"), running.pid("http-2")} & set(old)


def test_a_second_serve_on_the_same_folder_is_refused_and_harms_nothing(running: Serve) -> None:
    second = Serve(running.data)
    said, _ = second.launch().communicate(timeout=60)
    assert second.wait() == 1
    assert f"already (process {running.pid('server')})" in said
    assert _ready(running)


def test_sigterm_stops_everything_and_leaves_no_pid_file(data: Path) -> None:
    serve = Serve(data).start()
    pids = [serve.pid(name) for name in ("http-1", "http-2", "postmaster")]
    assert serve.stop() == 0
    assert list((data / "run").glob("*.pid")) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_children_end_with_a_killed_server_and_the_next_one_adopts_the_database(data: Path) -> None:
    serve = Serve(data).start()
    children, postmaster = [serve.pid("http-1"), serve.pid("http-2")], serve.pid("postmaster")
    port = serve.address.rsplit(":", 1)[1]
    serve.kill("server")
    # The same port at once: the orphans let go of it.
    successor = Serve(data, ANNOTOMY_HTTP_PORT=port).start()
    assert successor.pid("postmaster") == postmaster
    assert any('"adopted":true' in line for line in successor.log)
    wait_until(lambda: not any(_runs(pid) for pid in children), "the orphans are gone")
    assert _ready(successor)
    assert successor.stop() == 0
    assert processes_in(data / "postgres" / "cluster") == []


def test_a_port_that_is_taken_is_told(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        serve = Serve(data, ANNOTOMY_HTTP_PORT=str(taken.getsockname()[1]))
        said, _ = serve.launch().communicate(timeout=60)
    assert serve.wait() == 1
    assert "ANNOTOMY_HTTP_PORT" in said
    assert processes_in(data / "postgres" / "cluster") == []


def _ready(serve: Serve) -> bool:
    return httpx.get(f"{serve.address}/readyz", timeout=30).status_code == 200


def _runs(pid: int) -> bool:
    """Not even as a zombie that waits for an init process to collect it."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
