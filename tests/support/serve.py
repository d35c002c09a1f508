"""A real `annotomy serve` as a child process, for tests of processes, crashes and whole flows."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
ADMIN = ("admin", "only for tests 1!")


class Serve:
    """Start it with `start`, which returns when requests are answered. The port is chosen by the system."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.address = ""
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANNOTOMY_")},
            "ANNOTOMY_DATA": str(data),
            "ANNOTOMY_HTTP_PORT": "0",
            "ANNOTOMY_DIMSE_PORT": "0",
            "ANNOTOMY_HTTP_PROCESSES": "2",
            "ANNOTOMY_WORKERS_INLINE": "0",
            "ANNOTOMY_ADMIN_USERNAME": ADMIN[0],
            "ANNOTOMY_ADMIN_PASSWORD": ADMIN[1],
            **environment,
        }

    def launch(self, *command: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "annotomy.cli", *(command or ("serve",))],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def start(self) -> "Serve":
        process = self.launch()
        self.address = ""
        told = threading.Event()
        threading.Thread(target=self._read, args=(process, told), daemon=True).start()
        assert told.wait(START_TIMEOUT_S), "\n".join(self.log)
        assert self.address, "\n".join(self.log)
        return self

    def pid(self, name: str) -> int:
        """From the PID file; waits for it, since a child may just be starting again."""
        path = self.data / "run" / f"{name}.pid"
        try:
            wait_until(path.exists, f"{path} exists")
        except AssertionError as late:
            raise AssertionError("\n".join([str(late), *self.log[-40:]])) from late
        return int(path.read_text())

    def kill(self, name: str = "server") -> None:
        """kill -9 of one of its processes; of the server itself it returns when that is gone."""
        os.kill(self.pid(name), signal.SIGKILL)
        if name == "server":
            self.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(STOP_TIMEOUT_S)

    def client(self) -> httpx.Client:
        """Signed in as the administrator."""
        body = {"username": ADMIN[0], "password": ADMIN[1]}
        answer = httpx.post(f"{self.address}/api/v1/auth/token", json=body, timeout=30).raise_for_status().json()
        headers = {"authorization": f"Bearer {answer['access_token']}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=30)

    def _read(self, process: subprocess.Popen[str], told: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip())
            if line.startswith("Annotomy serves on "):
                self.address = line.split()[-1].rstrip("/")
                told.set()
        told.set()


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    """Polls a condition of the outside world (another process), which nothing announces to us."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
