"""Memberships: roles, time, groups, roles of a project's own, and requests for access."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Forbidden, NotFound
from annotomy.projects.access import Permission, require, require_declared, require_own_or_all
from annotomy.projects.requests import lapse
from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES, ROLES, holds, in_scope
from tests.support.application import Application


async def _me(application: Application, name: str) -> tuple[dict[str, str], str]:
    headers = await application.headers(name)
    return headers, (await application.client.get("/api/v1/users/me", headers=headers)).json()["id"]


async def _project(application: Application, headers: dict[str, str], name: str = "p") -> str:
    return (await application.client.post("/api/v1/projects", json={"name": name}, headers=headers)).json()["id"]


def test_every_permission_in_the_code_is_in_the_file_and_every_role_is_made_of_them() -> None:
    bare = {re.sub(r"\.(own|all)$", "", name) for name in PERMISSIONS}
    asked_with_an_owner = {
        f"{kind}.{verb}" for kind in ("annotation", "segmentation") for verb in ("edit", "delete", "share")
    }
    assert bare == {permission.value for permission in Permission} | asked_with_an_owner
    for name, entry in ROLE_ENTRIES.items():
        assert set(entry.permissions) <= PERMISSIONS.keys(), name
        scopes = {PERMISSIONS[one].scope for one in entry.permissions} - {"global"}
        assert entry.scope == "global" or scopes <= {"project"}, name
        assert entry.en
        assert re.search("[가-힣]", entry.ko)
    assert "study.read" not in ROLES["system_administrator"] | ROLES["auditor"]
    assert not any(one.startswith(("annotation.read.all", "segmentation.read.all")) for one in ROLES["blinded_reader"])


def test_all_includes_own_and_either_includes_the_bare_permission() -> None:
    assert holds({"annotation.read.all"}, "annotation.read.own")
    assert holds({"annotation.read.own"}, "annotation.read")
    assert not holds({"annotation.read.own"}, "annotation.read.all")
    assert not holds({"annotation.read"}, "annotation.read.own")
    assert in_scope(None, "study.read")
    assert in_scope({"read"}, "annotation.read.all")
    assert not in_scope({"read"}, "annotation.write")
    assert not in_scope({"write"}, "project.manage")
    assert in_scope({"annotation.read"}, "annotation.read")
    assert not in_scope(frozenset[str](), "study.read")


@pytest.mark.parametrize(
    ("scopes", "declared", "changes", "reached"),
    [
        (None, "project.manage", True, True),
        ({"read"}, "study.read", False, True),
        ({"read"}, "study.store", True, False),
        ({"study.store"}, "study.store", True, True),
        ({"study.store"}, "study.read", False, False),
        ({"write"}, "project.manage", True, False),
        ({"admin"}, "project.manage", True, True),
        ({"read"}, "own", False, True),
        ({"read"}, "own", True, False),
        ({"write"}, "member", True, True),
        (set(), "study.read", False, False),
    ],
)
def test_a_key_reaches_what_its_scopes_say(
    scopes: set[str] | None, declared: str, changes: bool, reached: bool
) -> None:
    actor = Actor(uuid4(), "key", kind="api_key", scopes=None if scopes is None else frozenset(scopes))
    if reached:
        require_declared(actor, declared, changes=changes)
    else:
        with pytest.raises(Forbidden):
            require_declared(actor, declared, changes=changes)


async def test_a_blinded_reader_cannot_tell_that_others_work_exists(application: Application) -> None:
    owner, _ = await _me(application, "owner")
    _, reader_id = await _me(application, "reader")
    project = UUID(await _project(application, owner))
    body = {"user_id": reader_id, "role": "blinded_reader"}
    await application.client.post(f"/api/v1/projects/{project}/members", json=body, headers=owner)
    reader = Actor(UUID(reader_id), "reader")
    async with application.services.db.read(reader) as tx:
        for action in ("annotation.read", "annotation.edit", "segmentation.delete"):
            await require_own_or_all(tx, reader, action, project, reader.user_id)
            with pytest.raises(NotFound):
                await require_own_or_all(tx, reader, action, project, uuid4())
        with pytest.raises(Forbidden):
            await require_own_or_all(tx, reader, "annotation.share", project, reader.user_id)
        narrowed = Actor(reader.user_id, "reader", kind="api_key", project_ids=frozenset({uuid4()}))
        with pytest.raises(NotFound):
            await require(tx, narrowed, Permission.STUDY_READ, project)


async def test_a_membership_holds_from_its_beginning_to_its_end(application: Application) -> None:
    owner, _ = await _me(application, "owner")
    reader, reader_id = await _me(application, "reader")
    url = f"/api/v1/projects/{await _project(application, owner)}"
    now = application.services.clock.now()
    for start, end, seen in (
        (None, None, 200),
        (None, -1, 404),
        (None, 1, 200),
        (1, 2, 404),
        (-2, -1, 404),
        (-1, 1, 200),
    ):
        times = {"valid_from": start, "expires_at": end}
        body: dict[str, Any] = {"user_id": reader_id, "role": "viewer"}
        body |= {name: None if h is None else (now + timedelta(hours=h)).isoformat() for name, h in times.items()}
        answer = await application.client.post(f"{url}/members", json=body, headers=owner)
        assert answer.status_code == 201, answer.text
        for path in (url, f"{url}/members", f"{url}/studies"):
            assert (await application.client.get(path, headers=reader)).status_code == seen


async def test_somebody_who_may_manage_is_left(application: Application) -> None:
    owner, owner_id = await _me(application, "owner")
    url = f"/api/v1/projects/{await _project(application, owner)}/members"
    answer = await application.client.delete(f"{url}/{owner_id}", headers=owner)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:annotomy:problem:last-administrator")
    answer = await application.client.post(url, json={"user_id": owner_id, "role": "viewer"}, headers=owner)
    assert answer.status_code == 409
    assert (await application.client.get(url, headers=owner)).json()["items"][0]["role"] == "project_admin"


async def test_a_group_brings_its_people_and_a_membership_of_ones_own_decides_before_it(
    application: Application,
) -> None:
    client = application.client
    admin, owner = await application.headers("admin"), await application.headers("owner")
    reader, reader_id = await _me(application, "reader")
    project = await _project(application, owner)
    url = f"/api/v1/projects/{project}"
    group = (await client.post("/api/v1/groups", json={"name": "radiology"}, headers=admin)).json()["id"]
    given = await client.post(f"{url}/groups", json={"group_id": group, "role": "annotator"}, headers=owner)
    assert given.status_code == 201, given.text

    async def role() -> str | None:
        answer = await client.get(url, headers=reader)
        return answer.json()["role"] if answer.status_code == 200 else None

    assert await role() is None
    joined = await client.post(f"/api/v1/groups/{group}/members", json={"user_id": reader_id}, headers=admin)
    assert joined.status_code == 204
    assert await role() == "annotator"
    removal = await client.delete(f"{url}/members/{reader_id}", headers=owner)
    assert removal.status_code == 409
    await client.post(f"{url}/members", json={"user_id": reader_id, "role": "viewer"}, headers=owner)
    assert await role() == "viewer"
    await client.delete(f"{url}/members/{reader_id}", headers=owner)
    assert await role() == "annotator"
    await client.delete(f"/api/v1/groups/{group}/members/{reader_id}", headers=admin)
    assert await role() is None
    await client.post(f"/api/v1/groups/{group}/members", json={"user_id": reader_id}, headers=admin)
    await client.delete(f"{url}/groups/{group}", headers=owner)
    assert await role() is None
    assert (await client.post("/api/v1/groups", json={"name": "x"}, headers=owner)).status_code == 403


async def test_a_projects_own_role_allows_what_it_says_and_changes_for_everybody_who_has_it(
    application: Application,
) -> None:
    client = application.client
    owner = await application.headers("owner")
    reader, reader_id = await _me(application, "reader")
    project = await _project(application, owner)
    url = f"/api/v1/projects/{project}"
    role = {"name": "tumor_board", "permissions": ["study.read"], "label": {"en": "Tumor board", "ko": "종양 협의체"}}
    assert (await client.post(f"{url}/roles", json=role, headers=owner)).status_code == 201
    await client.post(f"{url}/members", json={"user_id": reader_id, "role": "tumor_board"}, headers=owner)
    listed = (await client.get("/api/v1/roles", params={"project_id": project}, headers=reader)).json()
    assert [one["label"]["ko"] for one in listed["items"] if one["project_id"] == project] == ["종양 협의체"]
    assert (await client.get(f"{url}/studies", headers=reader)).status_code == 200
    await client.post(f"{url}/roles", json=role | {"permissions": ["annotation.write"]}, headers=owner)
    assert (await client.get(f"{url}/studies", headers=reader)).status_code == 403
    assert (await client.delete(f"{url}/roles/tumor_board", headers=owner)).status_code == 409
    for bad in ({"permissions": ["user.manage"]}, {"permissions": ["fly"]}, {"name": "viewer"}, {"name": "Über"}):
        assert (await client.post(f"{url}/roles", json=role | bad, headers=owner)).status_code == 400
    stranger = await application.headers("stranger")
    assert (await client.get("/api/v1/roles", params={"project_id": project}, headers=stranger)).status_code == 404


async def test_a_request_is_asked_approved_and_ends(application: Application) -> None:
    client = application.client
    owner, (reader, reader_id) = await application.headers("owner"), await _me(application, "reader")
    project = await _project(application, owner)
    now = application.services.clock.now()
    until = (now + timedelta(days=7)).isoformat()
    body = {"project_id": project, "reason": "second opinion", "scope": "read_only", "until": until}
    real = await client.post("/api/v1/access-requests", json=body, headers=reader)
    none = await client.post("/api/v1/access-requests", json=body | {"project_id": str(uuid4())}, headers=reader)
    assert real.status_code == none.status_code == 201
    assert real.json().keys() == none.json().keys(), "asking does not tell whether the project exists"
    assert (await client.get(f"/api/v1/projects/{project}", headers=reader)).status_code == 404
    [waiting] = (await client.get("/api/v1/access-requests", headers=owner)).json()["items"]
    assert (waiting["username"], waiting["state"]) == ("reader", "pending")
    url = f"/api/v1/access-requests/{waiting['id']}"
    assert (await client.post(f"{url}/approve", json={}, headers=reader)).status_code == 404
    approved = await client.post(f"{url}/approve", json={"note": "fine"}, headers=owner)
    assert approved.json()["state"] == "approved"
    members = (await client.get(f"/api/v1/projects/{project}/members", headers=reader)).json()["items"]
    mine = next(one for one in members if one["user_id"] == reader_id)
    assert mine["role"] == "viewer"
    assert mine["expires_at"] is not None
    again = await client.post(f"{url}/deny", json={}, headers=owner)
    assert (again.status_code, again.json()["type"]) == (409, "urn:annotomy:problem:request-decided")


async def test_a_request_is_denied_withdrawn_or_lapses(application: Application) -> None:
    client = application.client
    owner, reader = await application.headers("owner"), await application.headers("reader")
    project = await _project(application, owner)

    async def ask() -> str:
        body = {"project_id": project, "reason": "please"}
        return (await client.post("/api/v1/access-requests", json=body, headers=reader)).json()["id"]

    denied, withdrawn, old = await ask(), await ask(), await ask()
    await client.post(f"/api/v1/access-requests/{denied}/deny", json={"note": "no"}, headers=owner)
    await client.delete(f"/api/v1/access-requests/{withdrawn}", headers=reader)
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update access_requests set expires_at = now() where id = $1", UUID(old))
    states = {
        one["id"]: one["state"] for one in (await client.get("/api/v1/access-requests", headers=reader)).json()["items"]
    }
    assert states == {denied: "denied", withdrawn: "withdrawn", old: "expired"}
    for one in (denied, withdrawn, old):
        assert (await client.post(f"/api/v1/access-requests/{one}/approve", json={}, headers=owner)).status_code == 409
    assert (await client.get(f"/api/v1/projects/{project}", headers=reader)).status_code == 404


@pytest.mark.parametrize(
    ("scope", "role"), [("full", "annotator"), ("limited", "blinded_reader"), ("read_only", "viewer")]
)
async def test_an_approval_gives_the_role_of_the_scope_and_says_why(
    application: Application, scope: str, role: str
) -> None:
    client = application.client
    owner, (reader, _) = await application.headers("owner"), await _me(application, "reader")
    project = await _project(application, owner)
    body = {"project_id": project, "reason": "trial 7", "scope": scope}
    asked = (await client.post("/api/v1/access-requests", json=body, headers=reader)).json()
    url = f"/api/v1/access-requests/{asked['id']}/approve"
    assert (await client.post(url, json={"note": "agreed"}, headers=owner)).json()["scope"] == scope
    assert (await client.get(f"/api/v1/projects/{project}", headers=reader)).json()["role"] == role
    admin = await application.headers("admin")
    records = (await client.get("/api/v1/audit", params={"object": asked["id"]}, headers=admin)).json()["items"]
    assert [(one["action"], one["reason"]) for one in records] == [
        ("access_request.made", "trial 7"),
        ("access_request.approved", "agreed"),
    ]


async def test_an_approval_takes_no_better_role_away_and_no_time_that_has_passed(application: Application) -> None:
    client = application.client
    owner, (reader, reader_id) = await application.headers("owner"), await _me(application, "reader")
    project = await _project(application, owner)
    member = {"user_id": reader_id, "role": "reviewer"}
    assert (await client.post(f"/api/v1/projects/{project}/members", json=member, headers=owner)).status_code == 201
    body = {"project_id": project, "reason": "again", "scope": "read_only"}
    asked = (await client.post("/api/v1/access-requests", json=body, headers=reader)).json()["id"]
    url = f"/api/v1/access-requests/{asked}/approve"
    assert (await client.post(url, json={}, headers=owner)).status_code == 409
    past = {"role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}
    assert (await client.post(url, json=past, headers=owner)).status_code == 400
    assert (await client.get(f"/api/v1/projects/{project}", headers=reader)).json()["role"] == "reviewer"
    assert (await client.post(url, json={"role": "viewer"}, headers=owner)).status_code == 200
    assert (await client.get(f"/api/v1/projects/{project}", headers=reader)).json()["role"] == "viewer"


async def test_a_request_that_nobody_answered_is_ended_on_record(application: Application) -> None:
    client, reader = application.client, await application.headers("reader")
    body = {"project_id": str(uuid4()), "reason": "please"}
    asked = (await client.post("/api/v1/access-requests", json=body, headers=reader)).json()["id"]
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update access_requests set expires_at = now() where id = $1", UUID(asked))
    assert (await client.delete(f"/api/v1/access-requests/{asked}", headers=reader)).status_code == 404
    for _ in range(2):
        async with application.services.db.write(SYSTEM) as tx:
            await lapse(tx)
    admin = await application.headers("admin")
    records = (await client.get("/api/v1/audit", params={"object": asked}, headers=admin)).json()["items"]
    told = [one["action"] for one in records if one["object"]["kind"] == "access_request"]
    assert told == ["access_request.made", "access_request.expired"]


async def test_who_gives_roles_finds_people_and_groups_by_a_part_of_their_name(application: Application) -> None:
    client = application.client
    owner, outsider = await application.headers("owner"), await application.headers("outsider")
    await application.add_user("gildong.hong")
    await client.post("/api/v1/groups", json={"name": "Hong's readers"}, headers=await application.headers("admin"))
    project = (await client.post("/api/v1/projects", json={"name": "p"}, headers=owner)).json()["id"]
    url = f"/api/v1/projects/{project}/candidates"
    found = (await client.get(url, params={"search": "HONG"}, headers=owner)).json()["items"]
    assert [(one["kind"], one["name"], one["member"]) for one in found] == [
        ("user", "gildong.hong", False),
        ("group", "Hong's readers", False),
    ]
    themselves = (await client.get(url, params={"search": "owner"}, headers=owner)).json()["items"]
    assert [one["member"] for one in themselves] == [True]
    assert (await client.get(url, params={"search": "h"}, headers=owner)).status_code == 400
    assert (await client.get(url, params={"search": "hong"}, headers=outsider)).status_code == 404
