"""Generated from the OpenAPI document: every operation, called by everybody who might, on what is and is not theirs.

A new operation is tested by being there. It fails until it declares `opt={"permission": ...}`, and until the world
(world.py) has an object for each parameter of its path.
"""

import re
from datetime import timedelta
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

from annotomy.projects.roles import ROLE_ENTRIES, holds, in_scope
from tests.access.world import (
    ANYONE,
    DECLARABLE,
    JOBS,
    KEY_SCOPES,
    MEMBER,
    OWN,
    UPLOADS,
    Operation,
    World,
    absent_ids,
    call,
    leaks,
    names,
    operations,
    project_roles,
    same,
)
from tests.support.application import PASSWORD, Application

WIDE_SCOPES = ("read", "write", "admin")
"""With these a key goes through every operation; with one permission alone, through those that it reaches."""
STRANGERS = [
    "outsider",
    "expired",
    "admin",
    "key of another project",
    "share link",
    *(f"outsider's key {scope}" for scope in WIDE_SCOPES),
]
HIDDEN = {
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "segmentation_id",
    "prediction_id",
    "annotation_id",
}
EXPLAINS_RULES = {"GET /api/v1/studies/{study_instance_uid}/access"}
"""Tells who manages a project why somebody does not see a study, and so of studies that a rule hides from themselves."""
FOREIGN = {name for name in HIDDEN if not name.startswith("sop")} | {"rule_id", "request_id", "label_id"}
"""What belongs to one project, beside the project itself. Groups do not: they are the installation's."""
NOT_THERE = {
    "GET /api/v1/annotations/drafts/{key}",  # the world has no draft; each has only its author
    "GET /api/v1/models/{name}",  # models belong to the installation; the name is that of a role
    "GET /api/v1/projects/{project_id}/rules/preview",  # the person of the world is no member
    "DELETE /api/v1/access-requests/{request_id}",  # that of somebody else, who alone withdraws it
    "DELETE /api/v1/projects/{project_id}/studies/{study_instance_uid}",  # no ALLOW is left by then
    "DELETE /api/v1/users/me/passkeys/{passkey_id}",  # wants a fresh proof
}
"""Operations that find nothing in the world even for its owner, each for a reason."""


def _reads_own_work_alone(role: str) -> bool:
    held = ROLE_ENTRIES[role].permissions
    return holds(held, "annotation.read.own") and not holds(held, "annotation.read.all")


async def test_every_operation_declares_what_it_demands(application: Application) -> None:
    undeclared = [str(one) for one in operations(application) if one.declared not in DECLARABLE]
    for route in application.app.routes:
        for handler in getattr(route, "route_handlers", []):
            ours = isinstance(handler, HTTPRouteHandler) and handler.fn.__module__.startswith("annotomy.")
            if ours and str(handler.opt.get("permission", "")) not in DECLARABLE:
                undeclared.append(f"{route.path} ({handler.fn.__module__})")
    assert undeclared == [], 'give these routes opt={"permission": ...}'


async def test_methods_that_no_route_declares_are_refused(application: Application, world: World) -> None:
    for one in operations(application):
        path = re.sub(r"\{(\w+)\}", lambda found: world.ids[found[1]], one.path)
        for method in ("TRACE", "CONNECT", "PROPFIND"):
            answer = await application.client.request(method, path, headers=world.people["owner"])
            assert answer.status_code in (404, 405), f"{method} {one.path}: {answer.status_code}"


async def test_nobody_gets_in_without_a_valid_credential(
    application: Application, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended = await application.headers("suspended")
    me = (await application.client.get("/api/v1/users/me", headers=suspended)).json()["id"]
    await application.client.post(f"/api/v1/users/{me}/suspend", headers=world.people["admin"])
    signed_out = await _signed_out(application)
    with monkeypatch.context() as patched:
        long_ago = application.services.clock.now() - timedelta(days=1)

        def then(_: Any) -> Any:
            return long_ago

        patched.setattr(type(application.services.clock), "now", then)
        expired = await application.headers("viewer")
    application.app.state.authenticator._known.clear()  # what is remembered for some seconds
    credentials = {
        "nobody": {},
        "suspended": suspended,
        "signed out": signed_out,
        "expired token": expired,
        "expired key": world.people["expired key"],
        "revoked key": world.people["revoked key"],
        "forged token": {"Authorization": suspended["Authorization"][:-2] + "xx"},
        "wrong key": {"Authorization": "Bearer annotomy_wrong"},
        "another scheme": {"Authorization": "Basic eDp5"},
    }
    wrong: list[str] = []
    for one in operations(application):
        if one.declared == ANYONE:
            continue
        told = set[str]()
        for name, headers in credentials.items():
            answer = await call(application, one, headers, world.ids)
            told.add(re.sub(r'"(detail|request_id)":"[^"]*"', "", answer.text))
            if answer.status_code != 401 or leaks(answer):
                wrong.append(f"{name}: {one}: {answer.status_code} {answer.text[:200]}")
        if len(told) > 1:
            wrong.append(f"{one} tells bad credentials apart: {told}")
    assert not wrong, "\n".join(wrong)


async def _signed_out(application: Application) -> dict[str, str]:
    body = {"username": "viewer", "password": PASSWORD}
    answer = (await application.client.post("/api/v1/auth/token", json=body)).json()
    await application.client.post("/api/v1/auth/logout", json={"refresh_token": answer["refresh_token"]})
    return {"Authorization": f"Bearer {answer['access_token']}"}


def _destruction(one: Operation) -> tuple[bool, bool, bool]:
    """What takes away goes last, and last of it what takes away from a project what others hang on."""
    return one.method != "GET", one.method == "DELETE", "/projects/" in one.path


async def test_the_world_is_real_to_who_may_see_it(application: Application, world: World) -> None:
    """The other half of every 404 below: the same calls reach something when the owner makes them."""
    missed: list[str] = []
    for one in sorted(operations(application), key=_destruction):
        if one.declared in {ANYONE, "user.manage", "system.manage", "audit.read"} or not one.parameters:
            continue
        answer = await call(application, one, world.people["owner"], world.ids)
        if answer.status_code in (401, 403, 404) and str(one) not in NOT_THERE:
            missed.append(f"{one}: {answer.status_code} {answer.text[:160]}")
    assert not missed, "make these real in the world (tests/access/world.py):\n" + "\n".join(missed)


@pytest.mark.parametrize("person", STRANGERS)
async def test_what_is_not_ones_own_looks_as_if_it_did_not_exist(
    application: Application, world: World, person: str
) -> None:
    """Also to the administrator of the installation, who holds no patient data."""
    headers, absent = world.people[person], absent_ids(world.ids)
    administration = {"user.manage", "system.manage", "audit.read"} if person == "admin" else set[str]()
    wrong: list[str] = []
    for one in operations(application):
        if one.declared == ANYONE or one.declared in administration:
            continue
        if person == "admin" and one.path.startswith((JOBS, UPLOADS)):
            continue
        if person.startswith("key") and re.search(r"/(api-keys|sessions|passkeys|subscribers)", one.path):
            continue  # the owner's own credentials; they belong to no project
        theirs = await call(application, one, headers, world.ids)
        nothing = await call(application, one, headers, absent)
        named = set(one.parameters) - {"name", "action", "version", "key"}
        if leaks(theirs):
            wrong.append(f"{one} leaks: {theirs.text[:200]}")
        empty_search = one.path.startswith("/dicom-web/") and theirs.text == nothing.text == "[]"
        if theirs.is_success and (not nothing.is_success or (named and not empty_search)):
            wrong.append(f"{one} succeeds on what is not theirs: {theirs.status_code}")
        if theirs.status_code >= 500 or (not theirs.is_success and same(theirs, world.ids) != same(nothing, absent)):
            wrong.append(f"{one}: {same(theirs, world.ids)} is not {same(nothing, absent)}")
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


@pytest.mark.parametrize("person", ["outsider", *(f"outsider's key {scope}" for scope in WIDE_SCOPES)])
async def test_ones_own_project_is_no_way_to_the_objects_of_another(
    application: Application, world: World, person: str
) -> None:
    """An administrator of one project names it together with what belongs to another one."""
    own = {"project_id": world.outsiders_project}
    mixed, absent = world.ids | own, absent_ids(world.ids) | own
    wrong: list[str] = []
    named = 0
    for one in operations(application):
        if one.declared == ANYONE or not (names(one) & FOREIGN and "project_id" in names(one)):
            continue
        named += 1
        theirs = await call(application, one, world.people[person], mixed)
        nothing = await call(application, one, world.people[person], absent)
        if leaks(theirs) or same(theirs, mixed) != same(nothing, absent):
            wrong.append(f"{one}: {same(theirs, mixed)} is not {same(nothing, absent)}")
    assert not wrong, "\n".join(wrong)
    assert named >= 8


@pytest.mark.parametrize("role", project_roles())
async def test_what_a_rule_hides_looks_as_if_it_did_not_exist(
    application: Application, world: World, role: str
) -> None:
    """To each role: a rule hides the study from this one member."""
    member = {"user_id": world.user_ids["hidden"], "role": role}
    path = f"/api/v1/projects/{world.ids['project_id']}/members"
    await application.client.post(path, json=member, headers=world.people["owner"])
    headers = world.people["hidden"]
    # A remote is open to the project: what a rule hides is the study.
    absent = absent_ids(world.ids) | {name: world.ids[name] for name in ("project_id", "remote_id")}
    wrong: list[str] = []
    named = 0
    for one in operations(application):
        names_it = bool(HIDDEN & names(one)) and str(one) not in EXPLAINS_RULES
        if one.declared == ANYONE or not (names_it or one.method == "GET"):
            continue  # who manages the project may change its rules; that is no leak
        theirs = await call(application, one, headers, world.ids)
        if "SECRETPATIENT" in theirs.text or theirs.status_code >= 500:
            wrong.append(f"{one} leaks: {theirs.text[:200]}")
        if names_it:
            named += 1
            nothing = await call(application, one, headers, absent)
            if same(theirs, world.ids) != same(nothing, absent):
                wrong.append(f"{one}: {same(theirs, world.ids)} is not {same(nothing, absent)}")
    assert not wrong, "\n".join(wrong)
    assert named >= 20


@pytest.mark.parametrize("role", [name for name in project_roles() if _reads_own_work_alone(name)])
async def test_the_work_of_others_does_not_exist_for_who_reads_only_their_own(
    application: Application, world: World, role: str
) -> None:
    absent = absent_ids(world.ids) | {
        name: world.ids[name] for name in ("project_id", "study_instance_uid", "series_instance_uid")
    }
    wrong: list[str] = []
    named = 0
    for one in operations(application):
        if not {"annotation_id", "segmentation_id", "prediction_id"} & names(one):
            continue
        named += 1
        theirs = await call(application, one, world.people[role], world.ids)
        nothing = await call(application, one, world.people[role], absent)
        if leaks(theirs) or same(theirs, world.ids) != same(nothing, absent):
            wrong.append(f"{one}: {same(theirs, world.ids)} is not {same(nothing, absent)}")
    assert not wrong, "\n".join(wrong)
    assert named >= 15


async def test_each_role_is_refused_what_it_lacks(application: Application, world: World) -> None:
    wrong: list[str] = []
    every = operations(application)
    for role in project_roles():
        held = ROLE_ENTRIES[role].permissions
        for one in every:
            if one.declared in {ANYONE, OWN, MEMBER} or holds(held, one.declared):
                continue
            answer = await call(application, one, world.people[role], world.ids)
            if one.declared == "study.store" and answer.is_success:
                assert "project_id" not in one.parameters
                continue  # no project was named: it went to the person's own inbox
            asked_of_the_project = "project_id" in one.parameters
            refused = (
                answer.status_code == 403 if asked_of_the_project else answer.status_code in (400, 403, 404, 409, 415)
            )
            if _is_batch(one) and answer.status_code == 200:
                refused = _each_item_is_refused(answer)
            lists = one.method == "GET" and (answer.text == "[]" or (not one.parameters and not leaks(answer)))
            if not (refused or lists) or ("study.read" not in held and "SECRETPATIENT" in answer.text):
                wrong.append(f"{role}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_key_is_refused_what_its_scopes_do_not_reach(application: Application, world: World) -> None:
    """Keys of the project's administrator, who may do everything in it."""
    wrong: list[str] = []
    every = operations(application)
    for scope in KEY_SCOPES:
        for one in every:
            if one.declared in {ANYONE, OWN, MEMBER} or in_scope({scope}, one.declared):
                continue
            answer = await call(application, one, world.people[f"key {scope}"], world.ids)
            # What the form of the request refuses is refused before anybody is asked who they are.
            refused = answer.status_code in (400, 403) or (_is_batch(one) and _each_item_is_refused(answer))
            if not refused or leaks(answer):
                wrong.append(f"{scope}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_key_of_one_permission_reaches_nothing_of_others(application: Application, world: World) -> None:
    """What each scope lets through, on what belongs to somebody else; the test above has what it does not let through."""
    absent = absent_ids(world.ids)
    own = {"project_id": world.outsiders_project}
    wrong: list[str] = []
    reached = set[str]()
    every = operations(application)
    for scope in KEY_SCOPES:
        if scope in WIDE_SCOPES:
            continue
        headers = world.people[f"outsider's key {scope}"]
        for one in every:
            if one.declared in {ANYONE, OWN, MEMBER} or not in_scope({scope}, one.declared):
                continue
            reached.add(scope)
            through_own = bool(names(one) & FOREIGN) and "project_id" in names(one)
            for instead in ({}, own) if through_own else ({},):
                theirs = await call(application, one, headers, world.ids | instead)
                nothing = await call(application, one, headers, absent | instead)
                if leaks(theirs) or theirs.status_code >= 500:
                    wrong.append(f"{scope}: {one} leaks: {theirs.status_code} {theirs.text[:200]}")
                if not theirs.is_success and same(theirs, world.ids | instead) != same(nothing, absent | instead):
                    wrong.append(f"{scope}: {one}: {theirs.text[:200]} is not {nothing.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert len(reached) > 20


async def test_each_role_gets_what_it_holds(application: Application, world: World) -> None:
    """Reading operations; each changing one is tested by its feature."""
    wrong: list[str] = []
    every = operations(application)
    for role in project_roles():
        held = ROLE_ENTRIES[role].permissions
        for one in every:
            if (
                one.method == "GET"
                and "project_id" in one.parameters
                and (one.declared == MEMBER or holds(held, one.declared))
            ):
                answer = await call(application, one, world.people[role], world.ids | {"user_id": world.user_ids[role]})
                if answer.status_code != 200:
                    wrong.append(f"{role}: {one}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


def _is_batch(one: Operation) -> bool:
    return one.path.startswith("/api/v1/annotations/batch")


def _each_item_is_refused(answer: Any) -> bool:
    """A batch that is not atomic answers 200 with a result for each item."""
    results = answer.json().get("results", [])
    return bool(results) and all(result["status"] in (403, 404) for result in results)
