"""API keys: recognisable, shown once, narrowed by project, scope, network and time, revoked at once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Unauthenticated
from annotomy.identity.api_keys import KEY_PATTERN, find_api_key, handle_of, new_key
from annotomy.identity.authenticate import Authenticator
from tests.access.archives import invent_one, store
from tests.identity.people import bearer, execute, token, until
from tests.support.application import Application

ME = "/api/v1/users/me"
KEYS = "/api/v1/api-keys"


async def test_a_key_acts_for_its_user_until_it_is_revoked(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    issued = await _issue(application, owner)
    assert (await application.client.get(ME, headers=_with(issued))).json()["username"] == "engineer"
    assert (await application.client.delete(f"{KEYS}/{issued['id']}", headers=owner)).status_code == 204
    await until(application, _with(issued), 401)
    assert (await application.client.get(KEYS, headers=owner)).json()["items"] == []


def test_a_key_is_recognised_by_its_form_and_checksum() -> None:
    handle, key = new_key()
    assert KEY_PATTERN.fullmatch(key)
    assert handle_of(key) == handle
    for broken in (
        key[:-1],
        key + "a",
        key[:30] + ("a" if key[30] != "a" else "b") + key[31:],
        "annotomy_x",
        key.upper(),
    ):
        with pytest.raises(Unauthenticated):
            handle_of(broken)


async def test_the_database_holds_only_a_hash(application: Application) -> None:
    issued = await _issue(application, bearer(await token(application, "engineer")))
    async with application.services.db.read(SYSTEM) as tx:
        stored = str([dict(row) for row in await tx.fetch("select * from api_keys")])
    assert issued["key"] not in stored
    assert issued["key"].split("_")[2] not in stored


async def test_two_keys_live_side_by_side_for_rotation(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    old, new = await _issue(application, owner), await _issue(application, owner)
    for issued in (old, new):
        assert (await application.client.get(ME, headers=_with(issued))).status_code == 200
    await application.client.delete(f"{KEYS}/{old['id']}", headers=owner)
    await until(application, _with(old), 401)
    assert (await application.client.get(ME, headers=_with(new))).status_code == 200


async def test_a_key_expires(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    soon = datetime.now(UTC) + timedelta(hours=1)
    issued = await _issue(application, owner, expires_at=soon.isoformat())
    assert (await application.client.get(ME, headers=_with(issued))).status_code == 200
    now = application.services.clock.now
    object.__setattr__(application.services.clock, "now", lambda: now() + timedelta(hours=2))
    assert (await application.client.get(ME, headers=_with(issued))).status_code == 401, "although it was just used"


@pytest.mark.parametrize(
    ("address", "status"),
    [("192.0.2.7", 200), ("198.51.100.1", 401), ("2001:db8::1", 200), ("2001:db9::1", 401), ("::ffff:192.0.2.7", 200)],
)
async def test_a_key_is_bound_to_networks(application: Application, address: str, status: int) -> None:
    owner = bearer(await token(application, "engineer"))
    issued = await _issue(application, owner, addresses=["192.0.2.0/24", "2001:db8::/32"])
    assert (await application.client.get(ME, headers=_with(issued))).status_code == 401, "the test's own address"
    transport: Any = httpx.ASGITransport(application.app, client=(address, 1))  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://annotomy.test") as client:
        assert (await client.get(ME, headers=_with(issued))).status_code == status
        spoofed = {**_with(issued), "X-Forwarded-For": "192.0.2.7"}
        assert (await client.get(ME, headers=spoofed)).status_code == status, "no proxy is trusted"


async def test_scopes_reach_the_actor(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    for scopes in (None, ["read"], ["study.read", "write"], []):
        issued = await _issue(application, owner, scopes=scopes)
        known = await find_api_key(application.services, issued["key"])
        assert known.actor.scopes == (None if scopes is None else frozenset(scopes))
    unknown = await application.client.post(KEYS, json={"name": "k", "scopes": ["everything"]}, headers=owner)
    assert (unknown.status_code, "everything" in unknown.json()["detail"]) == (400, True)


async def test_a_narrowed_key_of_an_administrator_administers_nobody(application: Application) -> None:
    admin = bearer(await token(application, "admin"))
    for scopes, status in ((None, 200), (["admin"], 200), (["read", "write"], 403)):
        issued = await _issue(application, admin, scopes=scopes)
        assert (await application.client.get("/api/v1/users", headers=_with(issued))).status_code == status


async def test_a_key_hands_on_no_more_than_it_has(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    narrow = _with(await _issue(application, owner, scopes=["read", "write"]))
    for body in ({"name": "k"}, {"name": "k", "scopes": ["admin"]}, {"name": "k", "scopes": ["read", "admin"]}):
        assert (await application.client.post(KEYS, json=body, headers=narrow)).status_code == 403
    assert (
        await application.client.post(KEYS, json={"name": "k", "scopes": ["read"]}, headers=narrow)
    ).status_code == 201


async def test_a_key_reaches_the_projects_that_it_is_bound_to(application: Application) -> None:
    """In the list, in what it sees (both walls), and in what it may store."""
    owner = bearer(await token(application, "engineer"))
    client, services = application.client, application.services
    projects = [
        (await client.post("/api/v1/projects", json={"name": f"p{n}"}, headers=owner)).json()["id"] for n in range(3)
    ]
    async with services.db.read(SYSTEM) as tx:
        engineer = Actor(await tx.fetchval("select id from users where username = 'engineer'"), "engineer")
    stored = [invent_one() for _ in projects]
    for project, one in zip(projects, stored, strict=True):
        await store(services, engineer, [one], UUID(project))
    key = _with(await _issue(application, owner, project_ids=projects[:2]))
    assert {one["id"] for one in (await client.get("/api/v1/projects", headers=key)).json()["items"]} == {*projects[:2]}
    assert {one["project_id"] for one in (await client.get(ME, headers=key)).json()["projects"]} == {*projects[:2]}
    found = (await client.get("/dicom-web/studies", headers=key)).json()
    expected = {one["StudyInstanceUID"] for one in stored[:2]}
    assert {row["0020000D"]["Value"][0] for row in found} == expected
    actor = await application.app.state.authenticator.from_credential(key["Authorization"].removeprefix("Bearer "))
    async with services.db.read(actor) as tx:
        assert {row[0] for row in await tx.fetch("select study_instance_uid from studies")} == expected
    for project, status in zip(projects, (200, 200, 404), strict=True):
        assert (await client.get(f"/api/v1/projects/{project}", headers=key)).status_code == status
        assert (await client.get(f"/api/v1/projects/{project}/studies", headers=key)).status_code == status
    [listed] = (await client.get(KEYS, headers=owner)).json()["items"]
    assert {*listed["project_ids"]} == {*projects[:2]}


async def test_a_key_of_several_projects_hands_on_no_further_one(application: Application) -> None:
    owner = bearer(await token(application, "engineer"))
    client = application.client
    first, second, third = [
        (await client.post("/api/v1/projects", json={"name": f"p{n}"}, headers=owner)).json()["id"] for n in range(3)
    ]
    key = _with(await _issue(application, owner, project_ids=[first, second]))
    for body, status in (
        ({"project_ids": [first]}, 201),
        ({"project_id": second}, 201),
        ({"project_ids": [first, third]}, 403),
        ({}, 201),
    ):
        answer = await client.post(KEYS, json={"name": "k"} | body, headers=key)
        assert answer.status_code == status, answer.text
    newest = (await client.get(KEYS, headers=owner)).json()["items"][0]
    assert {*newest["project_ids"]} == {first, second}, "unsaid, it is what the issuing key reaches"
    for body in ({"project_ids": []}, {"project_ids": [first], "project_id": first}):
        assert (await client.post(KEYS, json={"name": "k"} | body, headers=owner)).status_code == 400
    stranger = await client.post(KEYS, json={"name": "k", "project_ids": [str(uuid4())]}, headers=owner)
    assert stranger.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{ME}/password", {"current_password": "x", "new_password": "y"}),
        ("PATCH", ME, {"display_name": "x"}),
        ("GET", "/api/v1/sessions", None),
        ("DELETE", "/api/v1/sessions", None),
        ("POST", f"{ME}/totp", None),
        ("POST", f"{ME}/recovery-codes", None),
        ("POST", f"{ME}/passkeys/challenge", None),
        ("POST", "/api/v1/auth/step-up", {"password": "x"}),
    ],
)
async def test_a_key_does_not_touch_the_security_of_its_owner(
    application: Application, method: str, path: str, body: Any
) -> None:
    issued = await _issue(application, bearer(await token(application, "engineer")))
    answer = await application.client.request(method, path, json=body, headers=_with(issued))
    assert answer.status_code == 403, answer.text


async def test_use_is_noted_at_most_once_a_minute(application: Application) -> None:
    issued = await _issue(application, bearer(await token(application, "engineer")))
    services = application.services

    async def used() -> tuple[Any, str]:
        authenticator = Authenticator(services, application.app.state.signer)
        actor: Actor = await authenticator.from_credential(issued["key"])
        assert actor.kind == "api_key"
        async with services.db.read(SYSTEM) as tx:
            row = await tx.fetchrow("select last_used_at, xmin::text as written from api_keys")
        assert row is not None
        return row["last_used_at"], row["written"]

    first, second = await used(), await used()
    assert first == second, "the row was written once"
    assert first[0] is not None
    await execute(application, "update api_keys set last_used_at = now() - interval '61 seconds'")
    assert (await used())[0] > datetime.now(UTC) - timedelta(seconds=30)


async def _issue(application: Application, owner: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = await application.client.post(KEYS, json={"name": "pipeline", **fields}, headers=owner)
    assert answer.status_code == 201, answer.text
    return answer.json()


def _with(issued: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued['key']}"}
