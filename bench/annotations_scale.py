"""The same requests among a thousand annotations and among a million, on a server of its own.

Studies and annotations are multiplied in SQL from those that the API made, versions included, so that each of them is read
through the same checks. Reads go to any of them; creating goes to the studies whose images are there.
"""

import asyncio
import json
import random
from collections.abc import Callable

import asyncpg

from annotomy.actor import SYSTEM
from annotomy.db.private_server import PrivateServer
from bench import corpus
from bench.lean import send_lean
from bench.measure import Comparison, Request, send_all
from bench.servers import WORK, Server, ours
from bench.stow import MULTIPART_JSON, store_path, stored

FEW_NAME, MANY_NAME = "among 1,000", "among 1,000,000"
SCALED = ("read one", "list 50", "create")
STUDIES, ON_EACH, TIMES = 20, 50, 1000
REQUESTS = 1000
CONNECTIONS = 4
SALT = 10
FILL_S = 1800.0
PATH = "/api/v1/annotations"
JSON = {"Content-Type": "application/json"}

_MULTIPLY = """
alter table studies no force row level security;
alter table studies disable trigger mark_repeated;
alter table project_items disable trigger bind_annotations;
create temp table made as select id as original, study_at, copied, study_instance_uid || '.' || copied as uid
  from studies cross join generate_series(1, {copies}) copied;
insert into studies (study_instance_uid, patient_id, study_at, modalities, series_count, instance_count, attributes)
  select m.uid, s.patient_id || m.copied, s.study_at, s.modalities, s.series_count, s.instance_count, s.attributes
  from made m join studies s on s.id = m.original;
insert into project_items (project_id, study_id, study_at, added_by)
  select i.project_id, s.id, s.study_at, i.added_by
  from made m join studies s on s.study_instance_uid = m.uid join project_items i on i.study_id = m.original;
alter table studies enable trigger mark_repeated;
alter table project_items enable trigger bind_annotations;
create temp table drawn as select a.id as original, gen_random_uuid() as id, s.id as study_id, m.uid, m.copied
  from made m join studies s on s.study_instance_uid = m.uid join annotations a on a.study_id = m.original;
insert into annotations (id, project_id, study_id, study_instance_uid, series_instance_uid, sop_instance_uid, frame_number,
    tracking_uid, kind, geometry_type, geometry, mapped_geometry, label, attributes, measurements, description, created_by,
    updated_by)
  select d.id, a.project_id, d.study_id, d.uid, a.series_instance_uid || '.' || d.copied, a.sop_instance_uid || '.' || d.copied,
    a.frame_number, a.tracking_uid || '.' || d.copied, a.kind, a.geometry_type, a.geometry, a.mapped_geometry, a.label,
    a.attributes, a.measurements, a.description, a.created_by, a.updated_by
  from drawn d join annotations a on a.id = d.original;
insert into annotation_versions (annotation_id, version, action, changed, content, why, created_by)
  select d.id, v.version, v.action, v.changed, v.content, v.why, v.created_by
  from drawn d join annotation_versions v on v.annotation_id = d.original;
alter table studies force row level security;
"""


def measure_scale(comparison: Comparison, runs: int) -> None:
    with ours() as server:
        server.headers["Authorization"] = f"Bearer {_api_key(server)}"  # it outlives a token: filling takes minutes
        _fill(server)
        for name in (FEW_NAME, MANY_NAME):
            if name == MANY_NAME:
                asyncio.run(_multiply())
            ids, studies = asyncio.run(_known())
            for run in range(runs + 1):
                chosen = random.Random(run)
                for kind, make in _kinds(server, ids, studies).items():
                    requests = [make(chosen) for _ in range(REQUESTS)]
                    sample = send_lean(server, requests, connections=CONNECTIONS)
                    if run:
                        comparison.note(f"{kind}, at scale", name, sample)


def _kinds(server: Server, ids: list[str], studies: list[str]) -> dict[str, Callable[[random.Random], Request]]:
    def read(chosen: random.Random) -> Request:
        return Request("GET", f"{PATH}/{chosen.choice(ids)}", _has("geometry"))

    def listing(chosen: random.Random) -> Request:
        study = chosen.choice(studies)
        path = f"{PATH}?study_instance_uid={study}&limit={ON_EACH}&project_id={server.project_id}"
        return Request("GET", path, _has("items"))

    def create(chosen: random.Random) -> Request:
        return Request("POST", PATH, _has("geometry"), _body(server, chosen.randrange(STUDIES)), JSON)

    return dict(zip(SCALED, (read, listing, create), strict=True))


def _has(member: str) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        if status not in (200, 201) or not json.loads(body)[member]:
            return f"status {status}: {body[:300]!r}"
        return None

    return check


def _api_key(server: Server) -> str:
    made: list[str] = []

    def remember(status: int, body: bytes) -> str | None:
        if status != 201:
            return f"status {status}: {body[:300]!r}"
        made.append(json.loads(body)["key"])
        return None

    send_all(server, [Request("POST", "/api/v1/api-keys", remember, b'{"name":"bench"}', JSON)])
    return made[0]


def _fill(server: Server) -> None:
    archive = server.at("/dicom-web")
    instances = [one for n in range(STUDIES) for one in corpus.study(SALT, instances=1, size=64, number=n)]
    body = corpus.multipart(instances)
    send_all(archive, [Request("POST", store_path(archive), stored(STUDIES), body, MULTIPART_JSON)])
    for n in range(STUDIES):
        batch = b'{"atomic":true,"items":[' + b",".join([_body(server, n)] * ON_EACH) + b"]}"
        send_all(server, [Request("POST", f"{PATH}/batch", _has("succeeded"), batch, JSON)])


def _body(server: Server, n: int) -> bytes:
    return json.dumps(
        {
            "project_id": server.project_id,
            "study_instance_uid": corpus.uid(1, SALT, n),
            "series_instance_uid": corpus.uid(2, SALT, n * 100),
            "sop_instance_uid": corpus.uid(3, SALT, n * 100_000),
            "kind": "measurement",
            "geometry": {"type": "length", "space": "pixel", "points": [[10.25, 20.5], [44.5, 31.75]]},
            "label": "nodule",
        }
    ).encode()


async def _multiply() -> None:
    connection = await _connect()
    try:
        await connection.execute(_MULTIPLY.format(copies=TIMES - 1), timeout=FILL_S)
        await connection.execute("vacuum analyze", timeout=FILL_S)
    finally:
        await connection.close()


async def _known() -> tuple[list[str], list[str]]:
    """Ids of some annotations, anywhere among them, and of some studies."""
    connection = await _connect()
    try:
        ids = await connection.fetch("select id from annotations order by hashtext(id::text) limit 5000")
        studies = await connection.fetch(
            "select study_instance_uid as uid from studies order by hashtext(study_instance_uid) limit 1000"
        )
        return [str(row["id"]) for row in ids], [row["uid"] for row in studies]
    finally:
        await connection.close()


async def _connect() -> asyncpg.Connection:
    url = PrivateServer(WORK / "annotomy").running_url()
    assert url is not None
    connection = await asyncpg.connect(url, timeout=60)
    await connection.execute(f"set app.actor = '{SYSTEM.user_id}'")
    return connection
