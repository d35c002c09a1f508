"""Sessions: refresh tokens serve once, whoever races; what ends a session ends it; cookies serve pages of ours only."""

import asyncio
from typing import Any

import httpx
import pytest

from annotomy.actor import SYSTEM
from tests.identity.people import ORIGIN, bearer, event_types, execute, refresh, token, until
from tests.support.application import PASSWORD, Application

ME = "/api/v1/users/me"


async def test_a_refreshed_session_goes_on_with_the_new_token(application: Application) -> None:
    first = await token(application, "reader")
    second = await refresh(application, first["refresh_token"])
    assert second.status_code == 200
    third = await refresh(application, second.json()["refresh_token"])
    assert third.status_code == 200
    assert (await application.client.get(ME, headers=bearer(third.json()))).status_code == 200


async def test_of_50_parallel_refreshes_one_wins_and_exactly_one_child_exists(application: Application) -> None:
    first = await token(application, "reader")
    answers = await asyncio.gather(*(refresh(application, first["refresh_token"]) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}, "within the grace all get the one child"
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from refresh_tokens where parent is not null") == 1
        assert await tx.fetchval("select count(*) from refresh_tokens") == 2


async def test_of_50_parallel_refreshes_by_different_clients_one_wins_and_the_family_ends(
    application: Application,
) -> None:
    first = await token(application, "reader", **{"User-Agent": "client 0"})
    agents = [{"User-Agent": f"client {n}"} for n in range(50)]
    answers = await asyncio.gather(*(refresh(application, first["refresh_token"], **agent) for agent in agents))
    assert [answer.status_code for answer in answers].count(200) == 1
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await refresh(application, winner["refresh_token"])).status_code == 401
    assert (await application.client.get(ME, headers=bearer(winner))).status_code == 401
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from refresh_tokens where parent is not null") == 1


async def test_the_direct_parent_gets_the_same_child_within_the_grace(application: Application) -> None:
    first = await token(application, "reader")
    one, two = await refresh(application, first["refresh_token"]), await refresh(application, first["refresh_token"])
    assert one.json()["refresh_token"] == two.json()["refresh_token"]
    assert "security.refresh_reused" not in await event_types(application)


async def test_reuse_after_the_grace_ends_the_session_and_is_a_security_event(application: Application) -> None:
    first = await token(application, "reader")
    child = (await refresh(application, first["refresh_token"])).json()
    await execute(
        application, "update refresh_tokens set used_at = used_at - interval '11 seconds' where used_at is not null"
    )
    assert (await refresh(application, first["refresh_token"])).status_code == 401
    assert (await refresh(application, child["refresh_token"])).status_code == 401
    assert (await application.client.get(ME, headers=bearer(child))).status_code == 401
    assert "security.refresh_reused" in await event_types(application)


async def test_a_grandparent_ends_the_session_even_within_ten_seconds(application: Application) -> None:
    first = await token(application, "reader")
    child = (await refresh(application, first["refresh_token"])).json()
    grandchild = (await refresh(application, child["refresh_token"])).json()
    assert (await refresh(application, first["refresh_token"])).status_code == 401
    assert (await refresh(application, grandchild["refresh_token"])).status_code == 401


async def test_the_database_alone_does_not_give_a_refresh_token(application: Application) -> None:
    first = await token(application, "reader")
    second = (await refresh(application, first["refresh_token"])).json()
    await refresh(application, second["refresh_token"])
    async with application.services.db.read(SYSTEM) as tx:
        stored = str([dict(row) for row in await tx.fetch("select * from refresh_tokens")])
        salts = await tx.fetchval("select count(*) from refresh_tokens where child_salt is not null")
    assert first["refresh_token"] not in stored
    assert second["refresh_token"] not in stored
    assert salts == 1, "only of the child that was not used yet"


@pytest.mark.parametrize(
    "change",
    [
        "update sessions set last_used_at = now() - interval '12 hours 1 second'",
        "update sessions set expires_at = now() - interval '1 second'",
        "update sessions set revoked_at = now()",
        "update users set state = 'suspended'",
    ],
)
async def test_an_idle_old_ended_or_suspended_session_is_not_refreshed(application: Application, change: str) -> None:
    first = await token(application, "reader")
    await execute(application, change)
    assert (await refresh(application, first["refresh_token"])).status_code == 401


async def test_use_does_not_move_the_absolute_limit(application: Application) -> None:
    first = await token(application, "reader")
    async with application.services.db.read(SYSTEM) as tx:
        before = await tx.fetchval("select expires_at from sessions")
    await refresh(application, first["refresh_token"])
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select expires_at from sessions") == before


async def test_signing_out_ends_the_access_token_too(application: Application) -> None:
    answer = await token(application, "reader")
    assert (await application.client.get(ME, headers=bearer(answer))).status_code == 200
    body = {"refresh_token": answer["refresh_token"]}
    assert (await application.client.post("/api/v1/auth/logout", json=body)).status_code == 204
    await until(application, bearer(answer), 401)


async def test_devices_are_listed_and_ended_one_by_one(application: Application) -> None:
    phone = await token(application, "reader", **{"User-Agent": "phone"})
    desk = await token(application, "reader", **{"User-Agent": "desk"})
    listed = (await application.client.get("/api/v1/sessions", headers=bearer(desk))).json()["items"]
    assert {one["client"]: one["current"] for one in listed} == {"phone": False, "desk": True}
    other = next(one["id"] for one in listed if not one["current"])
    ended = await application.client.delete(f"/api/v1/sessions/{other}", headers=bearer(desk))
    assert ended.status_code == 204
    await until(application, bearer(phone), 401)
    assert (await application.client.get(ME, headers=bearer(desk))).status_code == 200


async def test_all_other_devices_are_ended_at_once(application: Application) -> None:
    others = [await token(application, "reader") for _ in range(3)]
    desk = await token(application, "reader")
    answer = await application.client.delete("/api/v1/sessions", headers=bearer(desk))
    assert answer.json() == {"ended": 3}
    for other in others:
        await until(application, bearer(other), 401)
    assert (await application.client.get(ME, headers=bearer(desk))).status_code == 200


async def test_nobody_ends_somebody_elses_session(application: Application) -> None:
    reader, other = await token(application, "reader"), await token(application, "other")
    mine = (await application.client.get("/api/v1/sessions", headers=bearer(reader))).json()["items"][0]["id"]
    answer = await application.client.delete(f"/api/v1/sessions/{mine}", headers=bearer(other))
    assert answer.status_code == 404
    assert (await application.client.get(ME, headers=bearer(reader))).status_code == 200


async def test_a_page_keeps_its_refresh_token_in_a_cookie_that_scripts_cannot_read(application: Application) -> None:
    answer = await _sign_in_as_page(application)
    assert "refresh_token" not in answer.json()
    cookie = _cookie(answer, "annotomy_refresh")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/api/v1/auth" in cookie
    refreshed = await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)
    assert refreshed.status_code == 200
    assert "refresh_token" not in refreshed.json()


async def test_over_tls_the_cookie_has_the_host_prefix_and_what_it_demands(application: Application) -> None:
    secure: Any = httpx.ASGITransport(application.app)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=secure, base_url="https://annotomy.test") as client:
        await application.add_user("reader")
        answer = await client.post(
            "/api/v1/auth/token",
            json={"username": "reader", "password": PASSWORD, "cookie": True},
            headers={"Origin": "https://annotomy.test"},
        )
    cookie = _cookie(answer, "__Host-annotomy_refresh")
    parts = {part.strip() for part in cookie.split(";")}
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= parts
    assert "domain" not in cookie.lower()


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
async def test_the_cookie_serves_no_foreign_page(application: Application, headers: dict[str, str]) -> None:
    await _sign_in_as_page(application)
    answer = await application.client.post("/api/v1/auth/refresh", json={}, headers=headers)
    assert answer.status_code == 403
    answer = await application.client.post("/api/v1/auth/logout", json={}, headers=headers)
    assert answer.status_code == 403
    assert (await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)).status_code == 200


async def test_signing_out_a_page_clears_its_cookies(application: Application) -> None:
    await _sign_in_as_page(application)
    answer = await application.client.post("/api/v1/auth/logout", json={}, headers=ORIGIN)
    assert answer.status_code == 204
    assert not application.client.cookies
    assert (await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)).status_code == 401


async def _sign_in_as_page(application: Application) -> httpx.Response:
    await application.add_user("reader")
    answer = await application.client.post(
        "/api/v1/auth/token", json={"username": "reader", "password": PASSWORD, "cookie": True}, headers=ORIGIN
    )
    assert answer.status_code == 200, answer.text
    return answer


def _cookie(answer: httpx.Response, name: str) -> str:
    return next(one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{name}="))
