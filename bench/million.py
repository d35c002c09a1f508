"""A million series over HTTP: every kind of question, pages however deep, and what a store costs beside them.

Rows are made by SQL into the server's own PostgreSQL (as in `access.py`): loading them over the wire is not what is asked.
"""

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from annotomy.db.engine import Database
from annotomy.db.private_server import PrivateServer
from bench import corpus
from bench.access import FILL_S, SERIES_OF_STUDY, STUDIES, fill_studies
from bench.measure import Request, expect_json, send_all
from bench.servers import Server
from bench.stow import MULTIPART_JSON, store_path, stored

BAR_MS = 50.0
LOAD_BAR_S = 300.0
STORE_BAR = 1.2
CONNECTIONS = 8
REQUESTS = 200
STORES = 60
STUDIES_WITH_INSTANCES = 5000
"""The newest: queries of instances begin there."""

_INSTANCES = """
with newest as (select id, study_instance_uid from studies order by study_at desc, id desc limit $1),
blob as (insert into blobs (address, size) values (repeat('0', 64), 1) on conflict do nothing)
insert into instances (study_id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
  number_of_frames, blob_address, blob_size, data_set_digest, attributes)
select newest.id, se.id, se.series_instance_uid || '.' || n, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', n, 1,
  repeat('0', 64), 1, '', jsonb_build_object('00080018', jsonb_build_object('vr', 'UI', 'Value',
    jsonb_build_array(se.series_instance_uid || '.' || n)))
from newest join series se on se.study_id = newest.id, generate_series(1, 2) n"""


def measure(server: Server, *, short: bool) -> dict[str, Any]:
    studies = STUDIES // (50 if short else 1)
    before = _stores(server, 31)
    load_s = asyncio.run(_load(server, studies))
    after = _stores(server, 32)
    classes = dict[str, Any]()
    for name, requests in _questions(server, studies).items():
        send_all(server, requests[: CONNECTIONS * 2], connections=CONNECTIONS)
        figures = send_all(server, requests, connections=CONNECTIONS).figures()
        classes[name] = {
            "p50_ms": figures["p50_ms"],
            "p95_ms": figures["p95_ms"],
            "requests_per_s": figures["requests_per_s"],
            "met": figures["p95_ms"] < BAR_MS,
        }
    ratio = after / before
    return {
        "series": studies * SERIES_OF_STUDY,
        "connections": CONNECTIONS,
        "bar_ms": BAR_MS,
        "classes": classes,
        "load by SQL, s": {"seconds": load_s, "bar": LOAD_BAR_S, "met": load_s < LOAD_BAR_S},
        "store p95 beside them": {"ratio": ratio, "bar": STORE_BAR, "met": ratio <= STORE_BAR},
    }


def _stores(server: Server, salt: int) -> float:
    made = [
        Request("POST", store_path(server), stored(1), corpus.multipart(corpus.study(salt, instances=1, size=64, number=n)), MULTIPART_JSON)
        for n in range(STORES)
    ]  # fmt: skip
    return send_all(server, made).figures()["p95_ms"]


async def _load(server: Server, studies: int) -> float:
    assert server.data is not None, "our own server"
    url = PrivateServer(Path(server.data)).running_url()
    assert url is not None, "it runs"
    db = await Database.connect(url, pool_size=2)
    started = time.perf_counter()
    try:
        await fill_studies(db, studies)
        async with db.session() as connection:
            await connection.execute("set app.actor = '00000000-0000-0000-0000-000000000000'")
            for table in ("studies", "series", "instances"):
                await connection.execute(f"alter table {table} no force row level security")
            await connection.execute(_INSTANCES, STUDIES_WITH_INSTANCES, timeout=FILL_S)
            await connection.execute(
                "insert into project_items (project_id, study_id, study_at) select $1, id, study_at from studies"
                " on conflict do nothing",
                UUID(server.project_id), timeout=FILL_S,
            )  # fmt: skip
            for table in ("studies", "series", "instances"):
                await connection.execute(f"alter table {table} force row level security")
            await connection.execute("vacuum analyze", timeout=FILL_S)
    finally:
        await db.close()
    return time.perf_counter() - started


def _questions(server: Server, studies: int) -> dict[str, list[Request]]:
    def made(path: str, count: int | None = None) -> Request:
        return Request("GET", path, expect_json(200, count=count))

    def study(n: int) -> str:
        return f"1.2.840.99.{n * 7919 % studies + 1}"

    numbers = range(REQUESTS)
    orders = {f"100 studies by {name}": f"/studies?limit=100&orderby={name}" for name in ("PatientName", "-PatientID")}
    return {
        "newest 100 studies": [made("/studies?limit=100", 100)] * REQUESTS,
        "100 studies from the 1,000th": [made("/studies?limit=100&offset=1000", 100)] * REQUESTS,
        "a patient": [made(f"/studies?PatientID=P{n * 31}") for n in numbers],
        "a name's beginning": [made(f"/studies?PatientName=Name{1000 + n}*&limit=100") for n in numbers],
        "days and a modality": [made(f"/studies?StudyDate=2015{n % 12 + 1:02d}01-2015{n % 12 + 1:02d}28&ModalitiesInStudy=CT&limit=100") for n in numbers],
        "an accession number": [made(f"/studies?AccessionNumber=A{n * 7919 % studies + 1}") for n in numbers],
        "one study": [made(f"/studies?StudyInstanceUID={study(n)}", 1) for n in numbers],
        "series of a study": [made(f"/studies/{study(n)}/series", SERIES_OF_STUDY) for n in numbers],
        "newest 100 series": [made("/series?limit=100", 100)] * REQUESTS,
        "newest 100 instances": [made("/instances?limit=100", 100)] * REQUESTS,
        **{name: [made(path, 100)] * REQUESTS for name, path in orders.items()},
        **{f"{name}, deep": _deep(server, path, studies) for name, path in {"100 studies": "/studies?limit=100", **orders}.items()},
    }  # fmt: skip


def _deep(server: Server, path: str, studies: int) -> list[Request]:
    """Pages that begin behind two thirds of the archive: reached by following the links, in large steps."""
    at, found = path.replace("limit=100", "limit=5000"), list[str]()
    for _ in range(studies * 2 // 3 // 5000):
        page = Request("GET", at, expect_json(200, count=5000), on_headers=lambda given: found.append(given["Link"]))
        send_all(server, [page])
        at = path.partition("?")[0] + found[-1][1:].partition(">")[0]
    _, _, cursor = at.partition("cursor=")
    deep = f"{path}&cursor={cursor}" if cursor else path
    return [Request("GET", deep, expect_json(200, count=100))] * REQUESTS
