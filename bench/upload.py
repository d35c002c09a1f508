"""tus uploads of 64 MiB in chunks of 8 MiB, over 1 and 4 connections; beside @tus/server and tuspyserver."""

import base64
import http.client
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

from bench.measure import REQUEST_TIMEOUT_S, Comparison, Sample, cpu_seconds
from bench.servers import Server, ours, tus_node, tuspyserver

FILE_BYTES = 64 << 20
CHUNK_BYTES = 8 << 20


def run(runs: int, alone: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(ours()).at("/api/v1/uploads")]
        if not alone:
            servers.append(stack.enter_context(tus_node()).at("/files"))
            servers.append(stack.enter_context(tuspyserver()).at("/files"))
        comparison = Comparison(
            "upload",
            servers,
            "a request is one PATCH; ours syncs each chunk to disk and commits its offset before it answers, tus-node does "
            "not sync. Clock and processor time end with the last acknowledgement; the offset in it is checked",
        )
        comparison.alternate(runs, [(f"64 MiB, {c} connections", _uploads(c)) for c in (1, 4)])
        comparison.finish()


def _uploads(connections: int) -> Callable[[Server, int], Sample]:
    def measure(server: Server, _: int) -> Sample:
        latencies: list[float] = []
        failures: list[str] = []

        def client() -> None:
            try:
                latencies.extend(_upload(server))
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(f"{server.name}: {error!r}")

        before, started = cpu_seconds(server), time.perf_counter()
        clients = [threading.Thread(target=client) for _ in range(connections)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        seconds, cpu = time.perf_counter() - started, cpu_seconds(server) - before
        if failures:
            raise AssertionError(failures[0])
        return Sample(seconds, cpu, latencies, sent_bytes=connections * FILE_BYTES)

    return measure


def _upload(server: Server) -> list[float]:
    """The time of each PATCH in ms. The file is noise: no server can be quick by not storing it."""
    noise = _noise()
    metadata = f"filename {base64.b64encode(b'noise.bin').decode()}"
    if server.project_id:
        metadata += f",project_id {base64.b64encode(server.project_id.encode()).decode()}"
    tus = {**server.headers, "Tus-Resumable": "1.0.0"}
    connection = http.client.HTTPConnection(server.host, server.port, timeout=REQUEST_TIMEOUT_S)
    try:
        path = server.path if server.name != "tuspyserver" else f"{server.path}/"
        headers = _ask(
            connection, "POST", path, 201, {**tus, "Upload-Length": str(FILE_BYTES), "Upload-Metadata": metadata}
        )
        location = (headers["Location"] or "").removeprefix(f"http://{server.host}:{server.port}")
        latencies: list[float] = []
        said = None
        for offset in range(0, FILE_BYTES, CHUNK_BYTES):
            started = time.perf_counter()
            patch = {**tus, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            answer = _ask(connection, "PATCH", location, 204, patch, noise[offset : offset + CHUNK_BYTES])
            said = answer["Upload-Offset"]
            latencies.append(1000 * (time.perf_counter() - started))
        if said != str(FILE_BYTES):
            raise AssertionError(f"offset {said} after {FILE_BYTES} bytes")
        return latencies
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    status: int,
    headers: dict[str, str],
    body: bytes | memoryview | None = None,
) -> http.client.HTTPMessage:
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != status:
        raise AssertionError(f"{method} {path}: {response.status} {text[:300]!r}")
    return response.headers


@cache
def _noise() -> memoryview:
    return memoryview(secrets.token_bytes(FILE_BYTES))
