"""Roles of the installation: given and taken by its administrators, at once, on record, and never the last one."""

import asyncio
from typing import Any

from annotomy.app import create_app
from tests.support.application import Application


async def _people(application: Application) -> tuple[dict[str, str], dict[str, str], str, str]:
    admin, person = await application.headers("admin"), await application.headers("person")
    ids = [(await application.client.get("/api/v1/users/me", headers=by)).json()["id"] for by in (admin, person)]
    return admin, person, *ids


async def _audit_status(application: Application, headers: dict[str, str]) -> int:
    return (await application.client.get("/api/v1/audit", headers=headers)).status_code


async def test_a_role_is_given_and_taken_at_once_and_on_record(application: Application) -> None:
    admin, person, _, person_id = await _people(application)
    client, url = application.client, "/api/v1/global-roles"
    body: dict[str, Any] = {"user_id": person_id, "role": "system_auditor", "reason": "inspection"}
    assert await _audit_status(application, person) == 403
    assert (await client.post(url, json=body, headers=person)).status_code == 403
    for _ in range(2):
        given = await client.post(url, json=body, headers=admin)
        assert (given.status_code, given.json()["username"]) == (201, "person")
    assert await _audit_status(application, person) == 200
    assert (await client.get(url, headers=person)).status_code == 403, "an auditor manages nothing"
    held = (await client.get(url, headers=admin)).json()["items"]
    assert [(one["username"], one["role"]) for one in held] == [("admin", "system_administrator"), ("person", "system_auditor")]  # fmt: skip
    gone = await client.delete(f"{url}/{person_id}/system_auditor", params={"reason": "done"}, headers=admin)
    assert gone.status_code == 204
    assert await _audit_status(application, person) == 403
    assert (await client.delete(f"{url}/{person_id}/system_auditor", headers=admin)).status_code == 404
    records = (await client.get("/api/v1/audit", params={"object": person_id, "limit": 100}, headers=admin)).json()
    told = [(one["action"], one["reason"]) for one in records["items"] if one["action"].startswith("global_role")]
    assert told == [("global_role.granted", "inspection"), ("global_role.withdrawn", "done")]


async def test_an_administrator_is_made_and_unmade_in_every_process(application: Application) -> None:
    """A second process remembers who somebody was for less than five seconds, and is told at once."""
    import httpx

    admin, person, admin_id, person_id = await _people(application)
    client, url = application.client, "/api/v1/global-roles"
    other: Any = create_app(application.services)
    async with other.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://b.test") as b:

        async def becomes(status: int) -> None:
            for _ in range(50):
                answer = await b.get("/api/v1/users", headers=person)
                if answer.status_code == status:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(f"still {answer.status_code} after five seconds")  # pyright: ignore[reportPossiblyUnboundVariable]

        await becomes(403)
        body = {"user_id": person_id, "role": "system_administrator"}
        assert (await client.post(url, json=body, headers=admin)).status_code == 201
        await becomes(200)
        assert (await client.delete(f"{url}/{person_id}/system_administrator", headers=admin)).status_code == 204
        await becomes(403)
    last = await client.delete(f"{url}/{admin_id}/system_administrator", headers=admin)
    assert last.status_code == 409
    assert (await client.get(url, headers=admin)).status_code == 200


async def test_only_roles_of_the_installation_are_given_and_only_to_accounts(application: Application) -> None:
    admin, _, _, person_id = await _people(application)
    for body, status in (
        ({"user_id": person_id, "role": "project_admin"}, 400),
        ({"user_id": person_id, "role": "king"}, 400),
        ({"user_id": "00000000-0000-4000-8000-000000000000", "role": "system_auditor"}, 404),
    ):
        assert (await application.client.post("/api/v1/global-roles", json=body, headers=admin)).status_code == status
