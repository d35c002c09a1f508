"""Annotations as JSON: create, read one, list 50 of a study, over 1 and 4 connections; beside FastAPI with SQLAlchemy."""

import json
import secrets
from collections.abc import Callable
from contextlib import ExitStack

from bench import corpus
from bench.measure import Comparison, Request, Sample, send_all
from bench.servers import Server, fastapi, ours
from bench.stow import MULTIPART_JSON, store_path, stored

STUDIES = 20
ANNOTATIONS_PER_STUDY = 50
REQUESTS = 200
SALT = 9
POINTS = [[round(100 + 1.37 * n, 2), round(200 + 0.73 * n, 2)] for n in range(40)]
PATH = "/api/v1/annotations"


def run(runs: int, alone: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(ours())]
        if not alone:
            servers.append(stack.enter_context(fastapi()))
        known = {server.name: _fill(server) for server in servers}
        comparison = Comparison(
            "annotations",
            servers,
            "a polygon of 40 points; ours also checks the credential and the right, writes a version and an event; the peer "
            "has neither. The same PostgreSQL build and settings; ours runs its default number of processes, the peer one",
        )

        def create(n: int, server: Server) -> Request:
            return Request("POST", PATH, _status(201), _body(server, n), {"Content-Type": "application/json"})

        def read(n: int, server: Server) -> Request:
            ids = known[server.name]
            return Request("GET", f"{PATH}/{ids[n * 37 % len(ids)]}", _status(200))

        def listing(n: int, server: Server) -> Request:
            study = corpus.uid(1, SALT, n % STUDIES)
            path = f"{PATH}?study_instance_uid={study}&limit=50&project_id={server.project_id}"
            return Request("GET", path, _items(ANNOTATIONS_PER_STUDY))

        kinds = {"read one": read, "list 50": listing, "create": create}
        comparison.alternate(
            runs, [(f"{kind}, {c} connections", _ask(make, c)) for kind, make in kinds.items() for c in (1, 4)]
        )
        comparison.finish()


def _ask(make: Callable[[int, Server], Request], connections: int) -> Callable[[Server, int], Sample]:
    def measure(server: Server, run: int) -> Sample:
        return send_all(server, [make(run * 17 + n, server) for n in range(REQUESTS)], connections=connections)

    return measure


def _fill(server: Server) -> list[str]:
    """The studies (ours checks that they exist) and 50 annotations on each; their ids."""
    if server.project_id:
        archive = server.at("/dicom-web")
        instances = [one for n in range(STUDIES) for one in corpus.study(SALT, instances=1, size=16, number=n)]
        body = corpus.multipart(instances)
        send_all(archive, [Request("POST", store_path(archive), stored(STUDIES), body, MULTIPART_JSON)])
    ids: list[str] = []

    def remember(status: int, body: bytes) -> str | None:
        if status != 201:
            return f"status {status}: {body[:300]!r}"
        ids.append(json.loads(body)["id"])
        return None

    headers = {"Content-Type": "application/json"}
    total = STUDIES * ANNOTATIONS_PER_STUDY
    send_all(server, [Request("POST", PATH, remember, _body(server, n), headers) for n in range(total)])
    return ids


def _body(server: Server, n: int) -> bytes:
    return json.dumps(
        {
            "project_id": server.project_id or secrets.token_hex(8),
            "study_instance_uid": corpus.uid(1, SALT, n % STUDIES),
            "series_instance_uid": corpus.uid(2, SALT, n % STUDIES * 100),
            "sop_instance_uid": corpus.uid(3, SALT, n % STUDIES * 100_000),
            "frame_number": 1,
            "kind": "measurement",
            "geometry": {"type": "polygon", "space": "pixel", "points": POINTS},
        }
    ).encode()


def _status(expected: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status != expected or not json.loads(body).get("id"):
            return f"status {status}: {body[:300]!r}"
        return None

    return check


def _items(at_least: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status != 200 or len(json.loads(body)["items"]) < at_least:
            return f"status {status}: {body[:300]!r}"
        return None

    return check
