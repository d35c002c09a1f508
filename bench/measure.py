"""Requests over kept connections, the processor time of whole process trees, and comparisons that run A, B, A, B.

The machine is small and shared, so a number means nothing beside one from another day: every run measures all servers
in turn, and medians and ratios are what is kept.
"""

import contextlib
import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.machine import facts
from bench.servers import Server

RESULTS = Path(__file__).parent / "results"
REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Request:
    """`check` gets status and body and returns what is wrong, or None."""

    method: str
    path: str
    check: Callable[[int, bytes], str | None]
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    on_headers: Callable[[http.client.HTTPMessage], object] | None = None
    """Gets the headers of the answer."""


@dataclass(frozen=True)
class Sample:
    seconds: float
    cpu_s: float
    latencies_ms: list[float]
    received_bytes: int = 0
    sent_bytes: int = 0
    first_bytes_ms: list[float] = field(default_factory=list[float])
    """Until the head of the answer was there."""
    written_bytes: int = 0
    """What the processes of the server wrote, as the kernel counts it: pages that became dirty."""

    def figures(self) -> dict[str, float]:
        """Rates for each second; the processor time of the server's whole tree for each request."""
        ordered = sorted(self.latencies_ms)
        count = len(ordered)
        return {
            "requests_per_s": count / self.seconds,
            "p50_ms": ordered[count // 2],
            "p95_ms": ordered[min(count - 1, int(count * 0.95))],
            "p99_ms": ordered[min(count - 1, int(count * 0.99))],
            "cpu_ms_per_request": 1000 * self.cpu_s / count,
            "received_mb_per_s": self.received_bytes / self.seconds / 1e6,
            "sent_mb_per_s": self.sent_bytes / self.seconds / 1e6,
            "first_byte_ms": statistics.median(self.first_bytes_ms) if self.first_bytes_ms else 0.0,
            "written_per_byte": self.written_bytes / self.sent_bytes if self.sent_bytes else 0.0,
        }


def expect_json(*statuses: int, count: int | None = None) -> Callable[[int, bytes], str | None]:
    """The status, a body that is JSON and, where given, a list of that length."""

    def check(status: int, body: bytes) -> str | None:
        if status not in statuses:
            return f"status {status}: {body[:300]!r}"
        answer = json.loads(body) if body else []
        if count is not None and len(answer) != count:
            return f"{len(answer)} results instead of {count}"
        return None

    return check


def expect_bytes(at_least: int, *statuses: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status not in (statuses or (200,)) or len(body) < at_least:
            return f"status {status}, {len(body)} bytes instead of at least {at_least}: {body[:200]!r}"
        return None

    return check


def cpu_seconds(server: Server) -> float:
    """User and system time of every process of the server, those that ended included."""
    total = 0.0
    for root in server.processes():
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def written_bytes(server: Server) -> int:
    total = 0
    for root in server.processes():
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.io_counters().write_bytes
    return total


def memory_mb(server: Server) -> float:
    """Of the whole tree, pages that processes share counted once."""
    total = 0
    for root in server.processes():
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
    return total / 1e6


def send_all(server: Server, requests: Sequence[Request], *, connections: int = 1) -> Sample:
    """Every request once, divided over the connections. Raises AssertionError at the first wrong answer."""
    waiting = list(reversed(requests))
    latencies: list[float] = []
    failures: list[str] = []
    received: list[int] = []
    first: list[float] = []
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.connect()
            while not failures:
                with lock:
                    if not waiting:
                        return
                    request = waiting.pop()
                started = time.perf_counter()
                headers = {**server.headers, **request.headers}
                connection.request(request.method, server.path + request.path, request.body, headers)
                response = connection.getresponse()
                began = 1000 * (time.perf_counter() - started)
                body = response.read()
                took = 1000 * (time.perf_counter() - started)
                wrong = request.check(response.status, body)
                if request.on_headers is not None and not wrong:
                    request.on_headers(response.headers)
                if wrong:
                    failures.append(f"{server.name} {request.method} {request.path}: {wrong}")
                    return
                with lock:
                    latencies.append(took)
                    first.append(began)
                    received.append(len(body))
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{server.name}: {error!r}")
        finally:
            connection.close()

    before, wrote, started = cpu_seconds(server), written_bytes(server), time.perf_counter()
    clients = [threading.Thread(target=client) for _ in range(connections)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    seconds, cpu = time.perf_counter() - started, cpu_seconds(server) - before
    if failures:
        raise AssertionError(failures[0])
    sent = sum(len(r.body or b"") for r in requests)
    return Sample(seconds, cpu, latencies, sum(received), sent, first, written_bytes(server) - wrote)


class Comparison:
    """Collects what each server did in each measure; the first server is what the others are compared with."""

    def __init__(self, benchmark: str, servers: Sequence[Server], notes: str) -> None:
        self._benchmark = benchmark
        self._servers = list(servers)
        self._notes = notes
        self._machine = facts()
        self._figures: dict[str, dict[str, list[dict[str, float]]]] = {}

    def alternate(
        self,
        runs: int,
        measures: Iterable[tuple[str, Callable[[Server, int], Sample]]],
        *,
        servers: Sequence[Server] | None = None,
    ) -> None:
        """Every measure on every server in turn, `runs` times; run 0 warms up and is not kept."""
        fixed = list(measures)
        for run in range(runs + 1):
            for name, measure in fixed:
                for server in self._servers if servers is None else servers:
                    sample = measure(server, run)
                    if run:
                        of_measure = self._figures.setdefault(name, {})
                        of_measure.setdefault(server.name, []).append(sample.figures())

    def medians(self) -> dict[str, dict[str, dict[str, float]]]:
        """measure -> server -> figure -> median of the runs."""
        return {
            name: {
                server: {key: statistics.median(one[key] for one in samples) for key in samples[0]}
                for server, samples in by_server.items()
            }
            for name, by_server in self._figures.items()
        }

    def finish(self, **more: object) -> Path:
        """Prints medians and ratios (ours to the first peer, above 1 is more) and writes them with the machine, and with
        what else a benchmark has to say."""
        medians = self.medians()
        for name, by_server in medians.items():
            print(f"\n{name}")
            names = list(by_server)
            print(f"  {'':22}" + "".join(f"{server:>14}" for server in names) + (f"{'ratio':>10}" * (len(names) > 1)))
            for key in by_server[names[0]]:
                values = [by_server[server][key] for server in names]
                if not any(values):
                    continue
                row = "".join(f"{value:14.2f}" for value in values)
                ratio = f"{values[0] / values[1]:10.2f}" if len(values) > 1 and values[1] else ""
                print(f"  {key:22}{row}{ratio}")
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self._benchmark}.json"
        content = {
            "benchmark": self._benchmark,
            "notes": self._notes,
            "machine": self._machine,
            "servers": {server.name: server.version for server in self._servers},
            **more,
            "medians": _rounded(medians),
            "runs": _rounded(self._figures),
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {path}")
        return path


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_rounded(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    return round(value, 3) if isinstance(value, float) else value
