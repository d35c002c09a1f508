"""Generated from the OpenAPI document: every operation, called by everybody who might, on what is and is not theirs.

A new operation is tested by being there. It fails until it declares `opt={"permission": ...}`, and until the world below has
an object for each parameter of its path.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from litestar.handlers import HTTPRouteHandler

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, store_instances
from annotomy.db.identifiers import new_id
from annotomy.http.openapi import document as described_api
from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES, holds, in_scope
from tests.access.archives import headers_only, invent_one, store
from tests.support.application import Application
from tests.support.share_links import make_share_link, share_link_headers

ANYONE, OWN, MEMBER = "anyone", "own", "member"
"""Besides permissions: without a credential; one's own things; any member of the project."""
DECLARABLE = {ANYONE, OWN, MEMBER, *PERMISSIONS, *(re.sub(r"\.(own|all)$", "", name) for name in PERMISSIONS)}
KEY_SCOPES = ("read", "write", "admin", "study.read", "annotation.edit.own")
JOBS = "/api/v1/jobs"
"""Machine work, which holds no patient data: an administrator sees and stops everybody's."""
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


def _example(schema: dict[str, Any], ids: dict[str, str], name: str = "") -> Any:
    """A small body of this form; what names an object names the one in `ids`."""
    if name in ids:
        return ids[name]
    if "oneOf" in schema or "anyOf" in schema:
        return _example((schema.get("oneOf") or schema["anyOf"])[0], ids, name)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return next(value for value in schema["enum"] if value is not None)
    match schema.get("type"):
        case "object":
            wanted = {*schema.get("required", []), *(set(schema.get("properties", {})) & ids.keys() & {"project_id"})}
            return {one: _example(schema["properties"][one], ids, one) for one in sorted(wanted)}
        case "array":
            return [_example(schema["items"], ids, name)] if schema.get("items") else []
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


EVENT_STREAM = "/api/v1/events"


async def _call(application: Application, one: Operation, headers: dict[str, str], ids: dict[str, str]) -> Any:
    missing = [name for name in one.parameters if name not in ids]
    assert not missing, f"{one}: give the world an object for {missing}"
    path = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], one.path)
    body = None if one.body is None else _example(one.body, ids)
    extra = {"If-Match": '"1"', "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": "1"}
    params = {name: ids[name] for name in one.query}
    if one.path.rstrip("/") == EVENT_STREAM:
        return await _first_turn(application, path, headers, params)
    return await application.client.request(one.method, path, headers=headers | extra, params=params, json=body)


async def _first_turn(
    application: Application, path: str, headers: dict[str, str], params: dict[str, str]
) -> httpx.Response:
    """What the endless stream of events tells at once, from the beginning on: the server is said to stop after a turn."""

    class OneTurn:
        turns = 0

        def is_set(self) -> bool:
            self.turns += 1
            return self.turns > 1

    async def ending(scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope | {"state": {"draining": OneTurn()}}, receive, send)

    asgi: Any = application.app
    transport = httpx.ASGITransport(ending, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://annotomy.test") as client:
        return await client.get(path, headers=headers | {"Last-Event-ID": "0"}, params=params)


def _same(answer: Any, ids: dict[str, str]) -> tuple[int, str]:
    """What of an answer may not differ: all of it, but the request's id and what the asker said themselves."""
    text = re.sub(r'"request_id":"[^"]*"', "", answer.text)
    for name, value in sorted(ids.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"<{name}>")
    return answer.status_code, text


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
    people = {name: await application.headers(name) for name in [*users, *_project_roles()]}
    user_ids = {name: (await client.get("/api/v1/users/me", headers=people[name])).json()["id"] for name in people}

    async def post(path: str, body: Any, by: dict[str, str] = owner) -> Any:
        answer = await client.post(f"/api/v1{path}", json=body, headers=by)
        assert answer.status_code in (200, 201, 204), f"{path}: {answer.text}"
        return answer.json() if answer.content else None

    project = (await post("/projects", {"name": "SECRETPROJECT"}))["id"]
    attributes = invent_one(PatientID="SECRETPATIENT", PatientName="SECRETPATIENT", Modality="CT")

    async def files() -> AsyncIterator[Incoming]:
        yield Incoming("f", data=headers_only(attributes))

    [stored] = await store_instances(services, Actor(UUID(user_ids["owner"]), "owner"), UUID(project), files())
    assert stored.state == "stored"
    for role in _project_roles():
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
    await post("/projects", {"name": "elsewhere"}, people["outsider"])
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
    elsewhere = (await post("/projects", {"name": "another of the owner's"}))["id"]
    people["key of another project"] = _bearer(await post("/api-keys", {"name": "bound", "project_id": elsewhere}))
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
    code = {"value": "SECRETPROJECT", "scheme": "99TEST", "meaning": "SECRETPROJECT"}
    label = (await post("/labels", {"project_id": project} | code))["id"]
    async with services.db.write(SYSTEM) as tx:
        await tx.execute(
            "insert into jobs (id, kind, payload, asker_id, message) values ($1, 'none', '{}', $2, 'SECRETPROJECT')",
            UUID(job), UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into passkeys (id, user_id, credential_id, public_key, sign_count, name) values ($1, $2, '', '', 0, '')",
            UUID(passkey), UUID(user_ids["owner"]),
        )  # fmt: skip
        session = await tx.fetchval("select id from sessions where user_id = $1 limit 1", UUID(user_ids["owner"]))
        await tx.execute(
            "insert into segmentations (id, project_id, study_instance_uid, series_instance_uid, label, created_by)"
            " values ($1, $2, $3, $4, 'SECRETPROJECT', $5)",
            UUID(segmentation), UUID(project), attributes["StudyInstanceUID"], attributes["SeriesInstanceUID"],
            UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps, created_by)"
            " values ($1, 1, 'SECRETPROJECT', 'draft', '{1,1,1}', $2, $3)",
            UUID(segmentation), [float(n % 5 == 0) for n in range(16)], UUID(user_ids["owner"]),
        )  # fmt: skip
        await tx.execute(
            "insert into predictions (id, model, model_version, project_id, series_instance_uid, job_id, asked_by)"
            " values ($1, 'SECRETPROJECT', '1', $2, $3, $4, $5)",
            UUID(prediction), UUID(project), attributes["SeriesInstanceUID"], UUID(job), UUID(user_ids["owner"]),
        )  # fmt: skip
    yield World(
        ids={
            "project_id": project,
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
            "upload_id": upload.headers["location"].rsplit("/", 1)[1],
            "job_id": job,
            "segmentation_id": segmentation,
            "prediction_id": prediction,
            "version": "1",
            "passkey_id": passkey,
            "session_id": str(session),
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
    )


def _bearer(issued: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued['key']}"}


def _project_roles() -> list[str]:
    return [name for name, entry in ROLE_ENTRIES.items() if entry.scope == "project"]


def _absent(ids: dict[str, str]) -> dict[str, str]:
    """The same, of nothing that exists."""
    words = {
        "frame_list",
        "action",
        "name",
        "role",
        "version",
        "key",
        "format",
        "month",
        "number",
        "since",
        "until",
        "search",
    }
    return {
        name: value if name in words else "1.2.826.0.1.999" if name.endswith("_uid") else str(uuid4())
        for name, value in ids.items()
    }


async def test_every_operation_declares_what_it_demands(application: Application) -> None:
    undeclared = [str(one) for one in operations(application) if one.declared not in DECLARABLE]
    for route in application.app.routes:
        for handler in getattr(route, "route_handlers", []):
            ours = isinstance(handler, HTTPRouteHandler) and handler.fn.__module__.startswith("annotomy.")
            if ours and str(handler.opt.get("permission", "")) not in DECLARABLE:
                undeclared.append(f"{route.path} ({handler.fn.__module__})")
    assert undeclared == [], 'give these routes opt={"permission": ...}'


async def test_nobody_gets_in_without_a_valid_credential(application: Application, world: World) -> None:
    suspended = await application.headers("suspended")
    me = (await application.client.get("/api/v1/users/me", headers=suspended)).json()["id"]
    await application.client.post(f"/api/v1/users/{me}/suspend", headers=world.people["admin"])
    application.app.state.authenticator._known.clear()  # what is remembered for some seconds
    forged = {"Authorization": suspended["Authorization"][:-2] + "xx"}
    wrong: list[str] = []
    for one in operations(application):
        if one.declared == ANYONE:
            continue
        for headers in (
            {},
            suspended,
            forged,
            {"Authorization": "Bearer annotomy_wrong"},
            {"Authorization": "Basic eDp5"},
        ):
            answer = await _call(application, one, headers, world.ids)
            if answer.status_code != 401 or _leaks(answer):
                wrong.append(f"{one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("person", ["outsider", "expired", "admin", "key of another project", "share link"])
async def test_what_is_not_ones_own_looks_as_if_it_did_not_exist(
    application: Application, world: World, person: str
) -> None:
    """Also to the administrator of the installation, who holds no patient data."""
    headers, absent = world.people[person], _absent(world.ids)
    administration = {"user.manage", "system.manage", "audit.read"} if person == "admin" else set[str]()
    wrong: list[str] = []
    for one in operations(application):
        if one.declared == ANYONE or one.declared in administration:
            continue
        if person == "admin" and one.path.startswith(JOBS):
            continue
        if person.startswith("key") and re.search(r"/(api-keys|sessions|passkeys)", one.path):
            continue  # the owner's own credentials; they belong to no project
        theirs = await _call(application, one, headers, world.ids)
        nothing = await _call(application, one, headers, absent)
        named = set(one.parameters) - {"name", "action", "version", "key"}
        if _leaks(theirs):
            wrong.append(f"{one} leaks: {theirs.text[:200]}")
        empty_search = one.path.startswith("/dicom-web/") and theirs.text == nothing.text == "[]"
        if theirs.is_success and (not nothing.is_success or (named and not empty_search)):
            wrong.append(f"{one} succeeds on what is not theirs: {theirs.status_code}")
        if theirs.status_code >= 500 or (not theirs.is_success and _same(theirs, world.ids) != _same(nothing, absent)):
            wrong.append(f"{one}: {_same(theirs, world.ids)} is not {_same(nothing, absent)}")
    assert not wrong, "\n".join(wrong)
    # Nothing came of all that: the owner still has everything.
    owner = world.people["owner"]
    for path in (
        f"projects/{world.ids['project_id']}",
        f"uploads/{world.ids['upload_id']}",
        f"segmentations/{world.ids['segmentation_id']}",
    ):
        assert (await application.client.get(f"/api/v1/{path}", headers=owner)).status_code == 200
    job = (await application.client.get(f"/api/v1/jobs/{world.ids['job_id']}", headers=owner)).json()
    assert job["state"] == "queued"
    [study] = (await application.client.get("/dicom-web/studies", headers=owner)).json()
    assert study["0020000D"]["Value"] == [world.ids["study_instance_uid"]]


async def test_what_a_rule_hides_looks_as_if_it_did_not_exist(application: Application, world: World) -> None:
    headers = world.people["hidden"]
    hidden = {"study_instance_uid", "series_instance_uid", "sop_instance_uid", "segmentation_id", "prediction_id"}
    absent = _absent(world.ids) | {"project_id": world.ids["project_id"]}
    wrong: list[str] = []
    named = 0
    for one in operations(application):
        if one.declared == ANYONE:
            continue
        theirs = await _call(application, one, headers, world.ids)
        if "SECRETPATIENT" in theirs.text:
            wrong.append(f"{one} leaks: {theirs.text[:200]}")
        if hidden & set(one.parameters):
            named += 1
            nothing = await _call(application, one, headers, absent)
            if _same(theirs, world.ids) != _same(nothing, absent):
                wrong.append(f"{one}: {_same(theirs, world.ids)} is not {_same(nothing, absent)}")
    assert not wrong, "\n".join(wrong)
    assert named >= 10


async def test_each_role_is_refused_what_it_lacks(application: Application, world: World) -> None:
    wrong: list[str] = []
    for role in _project_roles():
        held = ROLE_ENTRIES[role].permissions
        for one in operations(application):
            if one.declared in {ANYONE, OWN, MEMBER} or holds(held, one.declared):
                continue
            answer = await _call(application, one, world.people[role], world.ids)
            if one.declared == "study.store" and answer.is_success:
                assert "project_id" not in one.parameters
                continue  # no project was named: it went to the person's own inbox
            asked_of_the_project = "project_id" in one.parameters
            refused = (
                answer.status_code == 403 if asked_of_the_project else answer.status_code in (400, 403, 404, 409, 415)
            )
            if _is_batch(one) and answer.status_code == 200:
                refused = _each_item_is_refused(answer)
            lists = one.method == "GET" and (answer.text == "[]" or (not one.parameters and not _leaks(answer)))
            if not (refused or lists) or ("study.read" not in held and "SECRETPATIENT" in answer.text):
                wrong.append(f"{role}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_key_is_refused_what_its_scopes_do_not_reach(application: Application, world: World) -> None:
    """Keys of the project's administrator, who may do everything in it."""
    wrong: list[str] = []
    for scope in KEY_SCOPES:
        for one in operations(application):
            if one.declared in {ANYONE, OWN, MEMBER} or in_scope({scope}, one.declared):
                continue
            answer = await _call(application, one, world.people[f"key {scope}"], world.ids)
            # What the form of the request refuses is refused before anybody is asked who they are.
            refused = answer.status_code in (400, 403) or (_is_batch(one) and _each_item_is_refused(answer))
            if not refused or _leaks(answer):
                wrong.append(f"{scope}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_each_role_gets_what_it_holds(application: Application, world: World) -> None:
    """Reading operations; each changing one is tested by its feature."""
    wrong: list[str] = []
    for role in _project_roles():
        held = ROLE_ENTRIES[role].permissions
        for one in operations(application):
            if (
                one.method == "GET"
                and "project_id" in one.parameters
                and (one.declared == MEMBER or holds(held, one.declared))
            ):
                answer = await _call(
                    application, one, world.people[role], world.ids | {"user_id": world.user_ids[role]}
                )
                if answer.status_code != 200:
                    wrong.append(f"{role}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


def _is_batch(one: Operation) -> bool:
    return one.path.startswith("/api/v1/annotations/batch")


def _each_item_is_refused(answer: Any) -> bool:
    """A batch that is not atomic answers 200 with a result for each item."""
    results = answer.json().get("results", [])
    return bool(results) and all(result["status"] in (403, 404) for result in results)


def _leaks(answer: Any) -> bool:
    return any(secret in answer.text for secret in SECRETS)
