"""Annotations as JSON: create, read one, list 50 and 5,000 of a study, 1 and 16 connections; beside FastAPI with SQLAlchemy.

Then ours alone: the same among a thousand annotations and among a million.
"""

import json
import secrets
from collections.abc import Callable
from contextlib import ExitStack

from bench import corpus
from bench.annotations_scale import FEW_NAME, MANY_NAME, SCALED, measure_scale
from bench.lean import send_lean
from bench.measure import Bar, Comparison, Request, Sample, send_all
from bench.servers import Server, fastapi, ours
from bench.stow import MULTIPART_JSON, store_path, stored

STUDIES = 20
ANNOTATIONS_PER_STUDY = 50
LARGE_STUDY = STUDIES
"""The number of the study that has many annotations."""
MANY = 5000
REQUESTS = {1: 300, 16: 1000}
"""By connections: of the many, enough that the slowest hundredth is ten of them."""
LONG_LISTS = 40
IMAGE_SIZE = 512
SALT = 9
POINTS = [[round(100 + 1.37 * n, 2), round(200 + 0.73 * n, 2)] for n in range(40)]
PATH = "/api/v1/annotations"
JSON = {"Content-Type": "application/json"}


def run(runs: int, alone: bool) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(ours())]
        if not alone:
            servers.append(stack.enter_context(fastapi()))
        known = {server.name: _fill(server) for server in servers}
        comparison = Comparison(
            "annotations",
            servers,
            "a polygon of 40 points on a 512 x 512 CT image; ours also checks the credential, the right and the geometry, "
            "measures area and values under the region, writes a version and an event; the peer does none of these. List 5000 "
            "is a summary without geometry here, and the same list of all at the peer, which has no other. The same "
            "PostgreSQL build and settings; ours runs its default number of processes, the peer one",
        )

        def create(n: int, server: Server) -> Request:
            return Request("POST", PATH, _annotation(201), _body(server, n % STUDIES), JSON)

        def read(n: int, server: Server) -> Request:
            ids = known[server.name]
            return Request("GET", f"{PATH}/{ids[n * 37 % len(ids)]}", _annotation(200))

        def listing(n: int, server: Server) -> Request:
            study = corpus.uid(1, SALT, n % STUDIES)
            path = f"{PATH}?study_instance_uid={study}&limit=50&project_id={server.project_id}"
            return Request("GET", path, _items(ANNOTATIONS_PER_STUDY, "geometry"))

        def many(n: int, server: Server) -> Request:
            del n
            study = corpus.uid(1, SALT, LARGE_STUDY)
            path = f"{PATH}?study_instance_uid={study}&limit={MANY}&project_id={server.project_id}&view=summary"
            return Request("GET", path, _items(MANY, "id"))

        kinds = {"read one": read, "list 50": listing, "create": create}
        comparison.alternate(
            runs,
            [
                *[
                    (f"{kind}, {c} connections", _ask(make, c, REQUESTS[c]))
                    for kind, make in kinds.items()
                    for c in REQUESTS
                ],
                ("list 5000, 1 connection", _ask(many, 1, LONG_LISTS)),
            ],
        )
    measure_scale(comparison, runs)
    comparison.finish(_bars(comparison, alone=alone))


def _bars(comparison: Comparison, *, alone: bool) -> list[Bar]:
    """The bars; a ratio is ours to the peer's in the same run."""
    medians = comparison.medians()
    bars = [Bar("list 5000 as a summary, p95 ms", medians["list 5000, 1 connection"]["annotomy"]["p95_ms"], high=50)]
    for kind, least in {} if alone else {"read one": 2.0, "list 50": 3.0, "create": 1.5}.items():
        mine, peer = (medians[f"{kind}, 16 connections"][name] for name in ("annotomy", "fastapi"))
        bars.append(Bar(f"{kind}, requests a second", mine["requests_per_s"] / peer["requests_per_s"], low=least))
        bars.append(Bar(f"{kind}, p99", mine["p99_ms"] / peer["p99_ms"], high=0.5))
    for kind in SCALED:
        few, many = (medians[f"{kind}, at scale"][name] for name in (FEW_NAME, MANY_NAME))
        bars.append(
            Bar(f"{kind}, p50 among a million to that among a thousand", many["p50_ms"] / few["p50_ms"], high=1.3)
        )
    return bars


def _ask(make: Callable[[int, Server], Request], connections: int, requests: int) -> Callable[[Server, int], Sample]:
    def measure(server: Server, run: int) -> Sample:
        return send_lean(server, [make(run * 17 + n, server) for n in range(requests)], connections=connections)

    return measure


def _fill(server: Server) -> list[str]:
    """The studies (ours measures on their images), 50 annotations on each of the small ones; their ids."""
    if server.project_id:
        archive = server.at("/dicom-web")
        numbers = range(STUDIES + 1)
        instances = [one for n in numbers for one in corpus.study(SALT, instances=1, size=IMAGE_SIZE, number=n)]
        body = corpus.multipart(instances)
        send_all(archive, [Request("POST", store_path(archive), stored(len(numbers)), body, MULTIPART_JSON)])
    ids: list[str] = []

    def remember(status: int, body: bytes) -> str | None:
        if status != 201:
            return f"status {status}: {body[:300]!r}"
        ids.append(json.loads(body)["id"])
        return None

    total = STUDIES * ANNOTATIONS_PER_STUDY
    send_all(server, [Request("POST", PATH, remember, _body(server, n % STUDIES), JSON) for n in range(total)])
    one = _body(server, LARGE_STUDY)
    if server.project_id:
        batch = b'{"items":[' + b",".join([one] * 1000) + b"]}"
        send_all(server, [Request("POST", f"{PATH}/batch", _batch(1000), batch, JSON)] * (MANY // 1000))
    else:
        send_all(server, [Request("POST", PATH, _annotation(201), one, JSON)] * MANY, connections=4)
    return ids


def _body(server: Server, n: int) -> bytes:
    return json.dumps(
        {
            "project_id": server.project_id or secrets.token_hex(8),
            "study_instance_uid": corpus.uid(1, SALT, n),
            "series_instance_uid": corpus.uid(2, SALT, n * 100),
            "sop_instance_uid": corpus.uid(3, SALT, n * 100_000),
            "frame_number": 1,
            "kind": "measurement",
            "geometry": {"type": "polygon", "space": "pixel", "points": POINTS},
        }
    ).encode()


def _annotation(expected: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status != expected or json.loads(body)["geometry"]["points"] != POINTS:
            return f"status {status}: {body[:300]!r}"
        return None

    return check


def _batch(count: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status != 200 or json.loads(body)["succeeded"] != count:
            return f"status {status}: {body[:300]!r}"
        return None

    return check


def _items(count: int, member: str) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        items = json.loads(body)["items"] if status == 200 else []
        if len(items) != count or not all(item[member] for item in items):
            return f"status {status}, {len(items)} items: {body[:300]!r}"
        return None

    return check
