"""STOW-RS: new CT slices of 512 x 512, in requests of 25 instances, over 1 and 4 connections; beside Orthanc."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench import corpus
from bench.measure import Comparison, Request, Sample, send_all
from bench.servers import Server, orthanc, ours

INSTANCES_PER_REQUEST = 25
REQUESTS = 8
MULTIPART_JSON = {"Content-Type": corpus.MULTIPART, "Accept": "application/dicom+json"}


def run(runs: int, alone: bool) -> None:
    with ExitStack() as stack:
        servers = archives(stack, alone)
        comparison = Comparison(
            "stow",
            servers,
            f"a request is {INSTANCES_PER_REQUEST} instances of 0.5 MB that the server has never seen; both servers sync "
            "to disk before they answer",
        )
        salts = iter(range(1, 1_000_000))
        comparison.alternate(runs, [(f"stow, {c} connections", store_new(salts, c)) for c in (1, 4)])
        comparison.finish()


def store_new(
    salts: Iterator[int],
    connections: int,
    *,
    size: int = 512,
    instances: int = INSTANCES_PER_REQUEST,
    requests: int = REQUESTS,
) -> Callable[[Server, int], Sample]:
    """Requests of instances that the server has never seen."""

    def measure(server: Server, _: int) -> Sample:
        salt = next(salts)
        made: list[Request] = []
        for number in range(requests):
            body = corpus.multipart(corpus.study(salt, instances=instances, size=size, number=number))
            made.append(Request("POST", store_path(server), stored(instances), body, MULTIPART_JSON))
        return send_all(server, made, connections=connections)

    return measure


def archives(stack: ExitStack, alone: bool) -> list[Server]:
    """Ours and, unless alone, Orthanc, both seen from their DICOMweb root."""
    servers = [stack.enter_context(ours()).at("/dicom-web")]
    if not alone:
        servers.append(stack.enter_context(orthanc()))
    return servers


def store_path(server: Server) -> str:
    return f"/studies?project_id={server.project_id}" if server.project_id else "/studies"


def stored(count: int) -> Callable[[int, bytes], str | None]:
    """All of them stored: 200, and one item of the Referenced SOP Sequence (0008,1199) for each."""

    def check(status: int, body: bytes) -> str | None:
        if status != 200:
            return f"status {status}: {body[:300]!r}"
        answer = json.loads(body)
        answer = answer[0] if isinstance(answer, list) else answer
        found = len(answer.get("00081199", {}).get("Value", []))
        return None if found == count else f"{found} of {count} stored: {body[:300]!r}"

    return check
