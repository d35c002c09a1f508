"""Signing in, tokens, API keys, and that nothing answers without a credential."""

from uuid import uuid4

import pytest

from tests.support.application import PASSWORD, Application

ANONYMOUS = {
    "/api/v1/auth/token",
    "/api/v1/auth/refresh",
    "/api/v1/auth/logout",
    "/api/v1/auth/token/second-factor",
    "/api/v1/auth/passkey",
    "/api/v1/auth/passkey/challenge",
    "/api/v1/auth/sign-up",
    "/api/v1/auth/password-reset",
    "/api/v1/auth/password-reset/confirm",
    "/api/v1/auth/jwks.json",
    "/api/v1/auth/ways",
    "/api/v1/auth/oidc/start",
    "/api/v1/auth/oidc/callback",
    "/livez",
    "/readyz",
    "/startupz",
    "/metrics",
    "/api/v1",  # the OpenAPI document once more
}
"""What needs no credential: the steps of signing in, and the probes. The static web app lies outside /api and /dicom-web."""


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
