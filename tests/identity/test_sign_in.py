"""Signing in, tokens, API keys, and that nothing answers without a credential."""

from uuid import uuid4

import pytest

from tests.support.application import PASSWORD, Application

ANONYMOUS = {
    "/api/v1/auth/token",
    "/api/v1/auth/refresh",
    "/api/v1/auth/logout",
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/api/v1",  # the OpenAPI document once more
}
"""What needs no credential: the login and the probes. The static web app lies outside /api and /dicom-web."""


async def test_a_user_signs_in_and_is_told_who_they_are(application: Application) -> None:
    headers = await application.headers("reader")
    answer = await application.client.get("/api/v1/users/me", headers=headers)
    assert answer.status_code == 200
    assert answer.json()["username"] == "reader"


@pytest.mark.parametrize("username", ["reader", "nobody"])
async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(
    application: Application, username: str
) -> None:
    await application.add_user("reader")
    answer = await application.client.post(
        "/api/v1/auth/token", json={"username": username, "password": "wrong password"}
    )
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:annotomy:problem:unauthenticated"


async def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(application: Application) -> None:
    await application.add_user("reader")
    first = (
        await application.client.post("/api/v1/auth/token", json={"username": "reader", "password": PASSWORD})
    ).json()
    body = {"refresh_token": first["refresh_token"]}
    second = await application.client.post("/api/v1/auth/refresh", json=body)
    assert second.status_code == 200
    assert (await application.client.post("/api/v1/auth/refresh", json=body)).status_code == 401
    child = {"refresh_token": second.json()["refresh_token"]}
    assert (await application.client.post("/api/v1/auth/refresh", json=child)).status_code == 401


async def test_an_api_key_acts_for_its_user_until_it_is_revoked(application: Application) -> None:
    headers = await application.headers("engineer")
    issued = (await application.client.post("/api/v1/api-keys", json={"name": "pipeline"}, headers=headers)).json()
    with_key = {"Authorization": f"Bearer {issued['key']}"}
    assert (await application.client.get("/api/v1/users/me", headers=with_key)).json()["username"] == "engineer"
    await application.client.delete(f"/api/v1/api-keys/{issued['id']}", headers=headers)
    listed = (await application.client.get("/api/v1/api-keys", headers=headers)).json()
    assert listed["items"] == []


async def test_only_an_administrator_makes_users(application: Application) -> None:
    body = {"username": "new", "email": "new@example.org", "password": PASSWORD}
    refused = await application.client.post("/api/v1/users", json=body, headers=await application.headers("reader"))
    assert refused.status_code == 403
    made = await application.client.post("/api/v1/users", json=body, headers=await application.headers("admin"))
    assert made.status_code == 201
    assert made.json()["state"] == "active"


async def test_no_route_answers_without_a_credential(application: Application) -> None:
    asked = 0
    for route in application.app.routes:
        path = route.path_format
        if (
            path in ANONYMOUS
            or path.startswith(("/api/v1/openapi", "/api/v1/{path"))
            or not path.startswith(("/api/", "/dicom-web"))
        ):
            continue
        for method in sorted(getattr(route, "methods", {"GET"}) - {"OPTIONS", "HEAD"}):
            concrete = _concrete(path)
            answer = await application.client.request(method, concrete, headers={"Tus-Resumable": "1.0.0"})
            assert answer.status_code in (400, 401, 415), f"{method} {path} answered {answer.status_code}"
            asked += 1
    assert asked > 10


def _concrete(path: str) -> str:
    parts = [str(uuid4()) if part.startswith("{") and "id" in part else part for part in path.split("/")]
    return "/".join("1" if part.startswith("{") else part for part in parts)
