"""A world to try every operation on: one object of each kind, and everybody who might ask for it.

A new operation is tested by being there. It fails until it declares `opt={"permission": ...}`, and until the world below has
an object for each parameter of its path.
"""

import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler
from PIL import Image

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, store_instances
from annotomy.db.identifiers import new_id
from annotomy.http.openapi import document as described_api
from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES, SCOPE_NAMES
from tests.access.archives import invent_one, picture, store
from tests.support.application import Application
from tests.support.share_links import make_share_link, share_link_headers

ANYONE, OWN, MEMBER = "anyone", "own", "member"
"""Besides permissions: without a credential; one's own things; any member of the project."""
DECLARABLE = {ANYONE, OWN, MEMBER, *PERMISSIONS, *(re.sub(r"\.(own|all)$", "", name) for name in PERMISSIONS)}
KEY_SCOPES = ("read", "write", "admin", *sorted(SCOPE_NAMES))
"""Each scope that an API key can be narrowed to."""
JOBS = "/api/v1/jobs"
UPLOADS = "/api/v1/uploads/"
"""Machine work, which holds no patient data: an administrator sees and stops everybody's."""
NAMES_AN_OBJECT = re.compile(r"_(id|uid)s?$")
HOLDING = "(select id from studies where study_instance_uid = {})"
SECRETS = ("SECRETPATIENT", "SECRETPROJECT", "SECRETUSER")
"""Planted in what is not theirs: no answer to somebody outside may hold one."""


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    declared: str
    parameters: tuple[str, ...]
    query: tuple[str, ...]
    body: Any
    """The JSON schema of what it takes, or None."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class World:
    """A project with one object for each kind of path parameter, and how each person signs in."""

    ids: dict[str, str]
    people: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    user_ids: dict[str, str] = field(default_factory=dict[str, str])
    outsiders_project: str = ""


def operations(application: Application) -> list[Operation]:
    document = described_api(application.app)
    declared = {
        (method, str(route.path_format).rstrip("/")): str(handler.opt.get("permission", ""))
        for route in application.app.routes
        for handler in getattr(route, "route_handlers", [])
        if isinstance(handler, HTTPRouteHandler)
        for method in handler.http_methods
    }
    found: list[Operation] = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            body = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            required = [
                one for one in described.get("parameters", []) if one.get("required") or one["name"] == "project_id"
            ]
            found.append(
                Operation(
                    method.upper(),
                    path,
                    declared.get((method.upper(), path.rstrip("/")), ""),
                    tuple(re.findall(r"\{(\w+)\}", path)),
                    tuple(one["name"] for one in required if one["in"] == "query"),
                    None if body is None else _resolved(document, body),
                )
            )
    assert len(found) > 50
    return found


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _resolved(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    resolved = dict(schema)
    for name in ("properties",):
        if name in resolved:
            resolved[name] = {key: _resolved(document, value) for key, value in resolved[name].items()}
    for name in ("oneOf", "anyOf", "allOf"):
        if name in resolved:
            resolved[name] = [_resolved(document, value) for value in resolved[name]]
    if resolved.get("items"):
        resolved["items"] = _resolved(document, resolved["items"])
    return resolved


def example(schema: dict[str, Any], ids: dict[str, str], name: str = "") -> Any:
    """A small body of this form; what names an object names the one in `ids`."""
    if name in ids:
        return ids[name]
    if name.endswith("s") and name[:-1] in ids and schema.get("type") == "array":
        return [ids[name[:-1]]]
    assert not (NAMES_AN_OBJECT.search(name) and schema.get("type") != "null"), (
        f"a body names {name}: give the world an object for it (`World.ids` in tests/access/world.py)"
    )
    if "oneOf" in schema or "anyOf" in schema:
        return example((schema.get("oneOf") or schema["anyOf"])[0], ids, name)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return next(value for value in schema["enum"] if value is not None)
    match schema.get("type"):
        case "object":
            wanted = {*schema.get("required", []), *(set(schema.get("properties", {})) & ids.keys() & {"project_id"})}
            return {one: example(schema["properties"][one], ids, one) for one in sorted(wanted)}
        case "array":
            return [example(schema["items"], ids, name)] if schema.get("items") else []
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            if schema.get("format") == "uuid":
                return str(uuid4())
            return "2099-01-01T00:00:00Z" if schema.get("format") == "date-time" else "x"


EVENT_STREAMS = ("/api/v1/events", "/dicom-web/subscribers/")
"""How the paths begin that answer without an end."""


def is_event_stream(method: str, path: str) -> bool:
    return method.upper() == "GET" and (path.rstrip("/") == EVENT_STREAMS[0] or path.startswith(EVENT_STREAMS[1]))


async def call(application: Application, one: Operation, headers: dict[str, str], ids: dict[str, str]) -> Any:
    missing = [name for name in (*one.parameters, *one.query) if name not in ids]
    assert not missing, f"{one}: give the world an object for {missing} (`World.ids` in tests/access/world.py)"
    path = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], one.path)
    body = None if one.body is None else example(one.body, ids)
    extra = {"If-Match": '"1"', "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": "1"}
    params = {name: ids[name] for name in one.query}
    if is_event_stream(one.method, one.path):
        async with one_turn(application) as client:
            return await client.get(path, headers=headers | {"Last-Event-ID": "0"}, params=params)
    return await application.client.request(one.method, path, headers=headers | extra, params=params, json=body)


def one_turn(application: Application) -> httpx.AsyncClient:
    """A client to whom the endless stream of events ends after what it tells at once: the server is said to stop then."""

    class OneTurn:
        turns = 0

        def is_set(self) -> bool:
            self.turns += 1
            return self.turns > 1

    async def ending(scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope | {"state": {"draining": OneTurn()}}, receive, send)

    asgi: Any = application.app
    transport = httpx.ASGITransport(ending, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://annotomy.test")


def same(answer: Any, ids: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    """What of an answer may not differ: all of it, but the request's id and what the asker said themselves."""
    text = re.sub(r'"request_id":"[^"]*"', "", answer.text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "<moment>", text)
    for name, value in sorted(ids.items(), key=lambda item: -len(item[1])):
        if len(value) > 8:  # words such as a version's number stand in both
            text = text.replace(value, f"<{name}>")
    text = _made_anew(text)
    # The length differs by what the asker said; all other headers tell as much as the body does.
    headers = {
        name: _made_anew(value)
        for name, value in answer.headers.items()
        if name not in ("x-request-id", "content-length")
    }
    return answer.status_code, text, headers


def _made_anew(text: str) -> str:
    """What is made gets identifiers by chance, which tell nothing."""
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<new id>", text)
    return re.sub(r"\b2\.25\.[0-9]{20,}\b", "<new uid>", text)


def names(one: Operation) -> set[str]:
    """What the operation is told of, in its path, its query and its body."""
    found = {*one.parameters, *one.query}

    def visit(schema: Any) -> None:
        if isinstance(schema, dict):
            found.update(schema.get("properties", {}))
            for value in schema.values():
                visit(value)
        elif isinstance(schema, list):
            for value in schema:
                visit(value)

    visit(one.body)
    return found


@pytest.fixture
async def world(application: Application) -> AsyncIterator[World]:
    client, services = application.client, application.services
    owner = await application.headers("owner")
    users: dict[str, Any] = {
        "admin": None,
        "SECRETUSER": None,
        "owner": None,
        "outsider": None,
        "expired": None,
        "hidden": None,
    }
    people = {name: await application.headers(name) for name in [*users, *project_roles()]}
    user_ids = {name: (await client.get("/api/v1/users/me", headers=people[name])).json()["id"] for name in people}

    async def post(path: str, body: Any, by: dict[str, str] = owner) -> Any:
        answer = await client.post(f"/api/v1{path}", json=body, headers=by)
        assert answer.status_code in (200, 201, 204), f"{path}: {answer.text}"
        return answer.json() if answer.content else None

    project = (await post("/projects", {"name": "SECRETPROJECT"}))["id"]
    attributes = invent_one(PatientID="SECRETPATIENT", PatientName="SECRETPATIENT", Modality="CT")

    async def files() -> AsyncIterator[Incoming]:
        yield Incoming("f", data=picture(attributes))

    [stored] = await store_instances(services, Actor(UUID(user_ids["owner"]), "owner"), UUID(project), files())
    assert stored.state == "stored"
    for role in project_roles():
        await post(f"/projects/{project}/members", {"user_id": user_ids[role], "role": role})
    yesterday = (services.clock.now() - timedelta(days=1)).isoformat()
    await post(
        f"/projects/{project}/members",
        {"user_id": user_ids["expired"], "role": "project_admin", "expires_at": yesterday},
    )
    await post(f"/projects/{project}/members", {"user_id": user_ids["hidden"], "role": "viewer"})
    allow = {"effect": "ALLOW", "level": "STUDY", "attribute": "PatientID", "operator": "PRESENT", "value": True}
    rule = (await post(f"/projects/{project}/rules", allow))["id"]
    await post(f"/projects/{project}/rules", allow | {"effect": "DENY", "user_id": user_ids["hidden"]})
    outsiders = (await post("/projects", {"name": "elsewhere"}, people["outsider"]))["id"]
    await post(f"/projects/{project}/roles", {"name": "own_role", "permissions": ["study.read"]})
    group = (await post("/groups", {"name": "SECRETPROJECT group"}, people["admin"]))["id"]
    await post(f"/projects/{project}/groups", {"group_id": group, "role": "viewer"})
    request = (await post("/access-requests", {"project_id": project, "reason": "SECRETUSER"}, people["SECRETUSER"]))[
        "id"
    ]
    manifest = await post(
        "/study-manifests", {"project_id": project, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}
    )
    key = (await post("/api-keys", {"name": "SECRETPROJECT"}))["id"]
    headers = owner | {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    upload = await client.post("/api/v1/uploads/", headers=headers)
    assert upload.status_code == 201, upload.text
    for scope in KEY_SCOPES:
        people[f"key {scope}"] = _bearer(await post("/api-keys", {"name": scope, "scopes": [scope]}))
        people[f"outsider's key {scope}"] = _bearer(
            await post("/api-keys", {"name": scope, "scopes": [scope]}, people["outsider"])
        )
    elsewhere = (await post("/projects", {"name": "another of the owner's"}))["id"]
    for name in ("expired", "revoked"):
        people[f"{name} key"] = _bearer(await post("/api-keys", {"name": name}))
    people["key of another project"] = _bearer(await post("/api-keys", {"name": "bound", "project_id": elsewhere}))
    address = {"url": "https://192.0.2.1/dicom-web"}  # an address of documents: the guard refuses it at once
    remote_body = {"name": "SECRETPROJECT", "kind": "dicomweb", "dicomweb": address, "project_ids": [project]}
    remote = (await post("/remotes", remote_body, people["admin"]))["id"]
    await client.put(f"/api/v1/remotes/{remote}/sync", json={}, headers=people["admin"])
    asked_for = {"project_id": project, "study_instance_uid": attributes["StudyInstanceUID"]}
    retrieval, push = [
        (await client.post(f"/api/v1/remotes/{remote}/{what}", json=asked_for, headers=owner)).json()["id"]
        for what in ("retrievals", "pushes")
    ]
    link = await make_share_link(
        application, owner, project, {attributes["StudyInstanceUID"]: []}, name="SECRETPROJECT"
    )
    stranger = invent_one()
    outsider = Actor(UUID(user_ids["outsider"]), "outsider")
    project_of_outsider = UUID((await post("/projects", {"name": "of the link"}, people["outsider"]))["id"])
    await store(services, outsider, [stranger], project_of_outsider)
    people["share link"] = await share_link_headers(
        application,
        people["outsider"],
        project_of_outsider,
        {stranger["StudyInstanceUID"]: []},
        actions=["view", "download"],
    )
    job, segmentation, prediction, passkey = (str(new_id()) for _ in range(4))
    target = {"project_id": project, "study_instance_uid": attributes["StudyInstanceUID"]}
    annotation = (await post("/annotations", target | {"kind": "label", "label": "SECRETPROJECT"}))["id"]
    evidence = await application.client.put(
        f"/api/v1/annotations/{annotation}/versions/1/evidence", content=_picture(), headers=people["owner"]
    )
    assert evidence.status_code == 200, evidence.text
    of_series = {"project_id": project, "series_instance_uid": attributes["SeriesInstanceUID"]}
    interactive = (await post("/interactive-sessions", of_series))["id"]
    code = {"value": "SECRETPROJECT", "scheme": "99TEST", "meaning": "SECRETPROJECT"}
    label = (await post("/labels", {"project_id": project} | code))["id"]
    async with services.db.write(SYSTEM) as tx:
        await tx.execute("update api_keys set expires_at = now() - interval '1 day' where name = 'expired'")
        await tx.execute("update api_keys set revoked_at = now() where name = 'revoked'")
        await tx.execute(
            "insert into jobs (id, kind, payload, asker_id, message) values ($1, 'none', '{}', $2, 'SECRETPROJECT')",
            UUID(job), UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into passkeys (id, user_id, credential_id, public_key, sign_count, name) values ($1, $2, '', '', 0, '')",
            UUID(passkey), UUID(user_ids["owner"]),
        )  # fmt: skip
        # Signed in with that passkey: exports are given to who has one only after a fresh proof.
        await tx.execute(
            "update sessions set methods = array_append(methods, 'hwk') where user_id = $1", UUID(user_ids["owner"])
        )
        session = await tx.fetchval("select id from sessions where user_id = $1 limit 1", UUID(user_ids["owner"]))
        await tx.execute(
            "insert into segmentations (id, project_id, study_instance_uid, series_instance_uid, label, created_by, study_id)"
            f" values ($1, $2, $3, $4, 'SECRETPROJECT', $5, {HOLDING.format('$3')})",
            UUID(segmentation), UUID(project), attributes["StudyInstanceUID"], attributes["SeriesInstanceUID"],
            UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps, created_by)"
            " values ($1, 1, 'SECRETPROJECT', 'draft', '{1,1,1}', $2, $3)",
            UUID(segmentation), [float(n % 5 == 0) for n in range(16)], UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into segments (segmentation_id, segment_number, since_version, label, code, category, color, statistics)"
            " values ($1, 1, 1, 'SECRETPROJECT', $2, $2, '#ff0000', $3)",
            UUID(segmentation), code, {"voxels": 0, "volume_mm3": 0.0, "centroid_lps_mm": None, "bounding_box": None},
        )  # fmt: skip
        await tx.execute(
            "insert into predictions (id, model, model_version, project_id, series_instance_uid, job_id, asked_by, study_id)"
            f" values ($1, 'SECRETPROJECT', '1', $2, $3, $4, $5, {HOLDING.format('$6')})",
            UUID(prediction), UUID(project), attributes["SeriesInstanceUID"], UUID(job), UUID(user_ids["owner"]),
            attributes["StudyInstanceUID"],
        )  # fmt: skip
        await tx.execute(
            "insert into workitems (id, workitem_uid, project_id, study_instance_uid, attributes, created_by, study_id)"
            f" values ($1, '1.2.826.0.1.7', $2, $3, $4, $5, {HOLDING.format('$3')})",
            new_id(), UUID(project), attributes["StudyInstanceUID"],
            {"00100020": {"vr": "LO", "Value": ["SECRETPATIENT"]}}, UUID(user_ids["owner"]),
        )  # fmt: skip
    subscribed = await client.post("/dicom-web/workitems/1.2.826.0.1.7/subscribers/SUBSCRIBER", headers=owner)
    assert subscribed.status_code == 201, subscribed.text
    yield World(
        ids={
            "project_id": project,
            "subject": "project",
            "subject_id": project,
            "study_instance_uid": attributes["StudyInstanceUID"],
            "series_instance_uid": attributes["SeriesInstanceUID"],
            "sop_instance_uid": attributes["SOPInstanceUID"],
            "frame_list": "1",
            "user_id": user_ids["SECRETUSER"],
            "action": "suspend",
            "rule_id": rule,
            "name": "own_role",
            "role": "viewer",
            "group_id": group,
            "request_id": request,
            "manifest_id": manifest["id"],
            "key_id": key,
            "link_id": link["id"],
            "remote_id": remote,
            "retrieval_id": retrieval,
            "push_id": push,
            "upload_id": upload.headers["location"].rsplit("/", 1)[1],
            "job_id": job,
            "segmentation_id": segmentation,
            "segment_number": "1",
            "prediction_id": prediction,
            "workitem_uid": "1.2.826.0.1.7",
            "ae_title": "SUBSCRIBER",
            "bulkdata_path": "00282000",
            "version": "1",
            "passkey_id": passkey,
            "session_id": str(session),
            "interactive_session_id": interactive,
            "annotation_id": annotation,
            "label_id": label,
            "key": "unfinished",
            "format": "json",
            "search": "secret",
            "month": "2026-10",
            "number": "1",
            "since": "2026-01-01T00:00:00Z",
            "until": "2026-02-01T00:00:00Z",
        },
        people=people,
        user_ids=user_ids,
        outsiders_project=outsiders,
    )


def _bearer(issued: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued['key']}"}


def project_roles() -> list[str]:
    return [name for name, entry in ROLE_ENTRIES.items() if entry.scope == "project"]


def absent_ids(ids: dict[str, str]) -> dict[str, str]:
    """The same, of nothing that exists."""
    words = {
        "frame_list",
        "action",
        "name",
        "subject",
        "role",
        "version",
        "key",
        "format",
        "month",
        "number",
        "segment_number",
        "since",
        "until",
        "ae_title",
        "bulkdata_path",
        "search",
    }
    return {
        name: value if name in words else "1.2.826.0.1.999" if name.endswith("_uid") else str(uuid4())
        for name, value in ids.items()
    }


def leaks(answer: Any) -> bool:
    return any(secret in answer.text for secret in SECRETS)


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()
