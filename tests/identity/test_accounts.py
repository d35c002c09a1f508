"""Accounts: asked for, approved, changed, suspended, deleted; passwords changed and reset; nothing tells which names exist."""

import asyncio
import email
import email.policy
import re
import stat
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotomy.actor import SYSTEM
from annotomy.identity.errors import WeakPassword
from annotomy.identity.notices import HANDLERS
from annotomy.identity.passwords import password_matches, require_strong
from annotomy.services import Services
from tests.identity.people import bearer, event_types, execute, refresh, token, until
from tests.support.application import PASSWORD, Application
from tests.support.jobs import run_queued_jobs

ME = "/api/v1/users/me"
NEW_PASSWORD = "seven green rivers of glass"


async def test_who_signs_up_waits_for_an_administrator(application: Application) -> None:
    answer = await _sign_up(application, "newcomer")
    assert (answer.status_code, answer.json()) == (202, {"state": "pending"})
    assert (await _sign_in(application, "newcomer", NEW_PASSWORD)).status_code == 401
    admin = bearer(await token(application, "admin"))
    waiting = (await application.client.get("/api/v1/users", headers=admin)).json()["items"]
    newcomer = next(one for one in waiting if one["username"] == "newcomer")
    assert newcomer["state"] == "pending"
    approved = await application.client.post(f"/api/v1/users/{newcomer['id']}/approve", headers=admin)
    assert (approved.status_code, approved.json()["state"]) == (200, "active")
    assert (await _sign_in(application, "newcomer", NEW_PASSWORD)).status_code == 200
    mails = await _mails(application.services)
    assert [mail["To"] for mail in mails] == ["newcomer@example.org"]


async def test_signing_up_with_a_taken_name_answers_the_same_and_tells_by_mail(application: Application) -> None:
    await application.add_user("reader")
    taken, free = await _sign_up(application, "Reader"), await _sign_up(application, "nobody-yet")
    assert (taken.status_code, taken.content) == (free.status_code, free.content)
    mails = await _mails(application.services)
    assert len(mails) == 1
    assert "taken" in _text(mails[0])
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 200, "the account is untouched"


async def test_only_an_administrator_approves(application: Application) -> None:
    await _sign_up(application, "newcomer")
    async with application.services.db.read(SYSTEM) as tx:
        user_id = await tx.fetchval("select id from users where username = 'newcomer'")
    reader = bearer(await token(application, "reader"))
    for path in (f"/api/v1/users/{user_id}/approve", f"/api/v1/users/{user_id}/activate"):
        assert (await application.client.post(path, headers=reader)).status_code == 403
    assert (await application.client.patch(f"/api/v1/users/{user_id}", json={}, headers=reader)).status_code == 403
    assert (await application.client.delete(f"/api/v1/users/{user_id}", headers=reader)).status_code == 403


async def test_a_suspended_user_is_out_at_once_and_comes_back_when_activated(application: Application) -> None:
    reader, admin = await token(application, "reader"), bearer(await token(application, "admin"))
    user_id = (await application.client.get(ME, headers=bearer(reader))).json()["id"]
    assert (await application.client.post(f"/api/v1/users/{user_id}/suspend", headers=admin)).status_code == 200
    await until(application, bearer(reader), 401)
    assert (await refresh(application, reader["refresh_token"])).status_code == 401
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 401
    assert (await application.client.post(f"/api/v1/users/{user_id}/activate", headers=admin)).status_code == 200
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 200
    assert (await application.client.get(ME, headers=bearer(reader))).status_code == 401, "the old session stays ended"


async def test_a_new_administrator_is_one_without_signing_in_again_and_a_former_one_is_none(
    application: Application,
) -> None:
    reader, admin = bearer(await token(application, "reader")), bearer(await token(application, "admin"))
    user_id = (await application.client.get(ME, headers=reader)).json()["id"]
    for is_admin, expected in ((True, 200), (False, 403)):
        changed = await application.client.patch(f"/api/v1/users/{user_id}", json={"is_admin": is_admin}, headers=admin)
        assert changed.json()["is_admin"] is is_admin
        await until(application, reader, expected, path="/api/v1/users")


async def test_a_deleted_account_is_emptied_and_its_name_stays_taken(application: Application) -> None:
    reader, admin = bearer(await token(application, "reader")), bearer(await token(application, "admin"))
    user_id = (await application.client.get(ME, headers=reader)).json()["id"]
    key = (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=reader)).json()["key"]
    assert (await application.client.delete(f"/api/v1/users/{user_id}", headers=admin)).status_code == 204
    await until(application, reader, 401)
    await until(application, {"Authorization": f"Bearer {key}"}, 401)
    async with application.services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow("select email, password_hash, display_name from users where id = $1", user_id)
    assert tuple(row or ()) == (None, None, "")
    again = await application.client.post("/api/v1/users", json={"username": "reader"}, headers=admin)
    assert again.status_code == 409


async def test_the_last_administrator_stays(application: Application) -> None:
    admin = bearer(await token(application, "admin"))
    own = (await application.client.get(ME, headers=admin)).json()["id"]
    refused = [
        await application.client.post(f"/api/v1/users/{own}/suspend", headers=admin),
        await application.client.delete(f"/api/v1/users/{own}", headers=admin),
        await application.client.patch(f"/api/v1/users/{own}", json={"is_admin": False}, headers=admin),
    ]
    assert [answer.status_code for answer in refused] == [409, 409, 409]


async def test_a_profile_is_changed_by_its_owner(application: Application) -> None:
    reader = bearer(await token(application, "reader"))
    body = {"display_name": "김영희", "email": "reader@example.org"}
    assert (await application.client.patch(ME, json=body, headers=reader)).status_code == 200
    profile = (await application.client.get(f"{ME}/profile", headers=reader)).json()
    assert profile["user"]["display_name"] == "김영희"
    assert profile["user"]["email"] == "reader@example.org"
    broken = await application.client.patch(ME, json={"email": "a@b\r\nBcc: c@d"}, headers=reader)
    assert broken.status_code == 400


async def test_a_new_mail_address_needs_a_fresh_proof(application: Application) -> None:
    reader = bearer(await token(application, "reader"))
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    stale = await application.client.patch(ME, json={"email": "new@example.org"}, headers=reader)
    assert (stale.status_code, stale.json()["type"]) == (403, "urn:annotomy:problem:step-up-required")
    proven = await application.client.post("/api/v1/auth/step-up", json={"password": PASSWORD}, headers=reader)
    assert proven.status_code == 204
    assert (await application.client.patch(ME, json={"email": "new@example.org"}, headers=reader)).status_code == 200


async def test_changing_the_password_needs_the_present_one_and_ends_other_sessions(application: Application) -> None:
    other, here = await token(application, "reader"), await token(application, "reader")
    wrong = await _change(application, here, "not the password", NEW_PASSWORD)
    assert (wrong.status_code, wrong.json()["type"]) == (403, "urn:annotomy:problem:proof-refused")
    assert (await _change(application, here, PASSWORD, NEW_PASSWORD)).status_code == 204
    await until(application, bearer(other), 401)
    assert (await application.client.get(ME, headers=bearer(here))).status_code == 200
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 401
    assert (await _sign_in(application, "reader", NEW_PASSWORD)).status_code == 200


async def test_a_forgotten_password_is_reset_by_a_link_that_works_once(application: Application) -> None:
    session = await token(application, "reader")
    await execute(application, "update users set email = 'reader@example.org'")
    asked = await application.client.post("/api/v1/auth/password-reset", json={"username": "reader"})
    assert asked.status_code == 202
    mails = await _mails(application.services)
    link = re.search(r"http://\S+/reset-password#(\S+)", _text(mails[0]))
    assert link is not None
    async with application.services.db.read(SYSTEM) as tx:
        assert link[1] not in str(await tx.fetch("select * from password_resets"))
        assert link[1] not in str(await tx.fetch("select * from jobs"))
    weak = await _reset(application, link[1], "short")
    assert weak.json()["type"] == "urn:annotomy:problem:weak-password"
    assert (await _reset(application, link[1], NEW_PASSWORD)).status_code == 204
    await until(application, bearer(session), 401)
    assert (await _sign_in(application, "reader", NEW_PASSWORD)).status_code == 200
    again = await _reset(application, link[1], "another fine phrase")
    assert again.json()["type"] == "urn:annotomy:problem:link-expired"


async def test_of_two_resets_with_one_link_one_passes(application: Application) -> None:
    link = await _link(application)
    answers = await asyncio.gather(*(_reset(application, link, f"{NEW_PASSWORD} {n}") for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400, 400, 400]


@pytest.mark.parametrize(
    "change",
    [
        "update password_resets set expires_at = now() - interval '1 second'",
        "update users set state = 'suspended'",
        "delete from password_resets",
    ],
)
async def test_an_old_link_or_one_of_a_suspended_account_does_nothing(application: Application, change: str) -> None:
    link = await _link(application)
    await execute(application, change)
    assert (await _reset(application, link, NEW_PASSWORD)).json()["type"] == "urn:annotomy:problem:link-expired"


async def test_a_newer_link_voids_the_older_and_so_does_a_new_mail_address(application: Application) -> None:
    older = await _link(application)
    newer = await _link(application)
    assert (await _reset(application, older, NEW_PASSWORD)).status_code == 400
    reader = bearer(await token(application, "reader"))
    assert (await application.client.patch(ME, json={"email": "n@example.org"}, headers=reader)).status_code == 200
    assert (await _reset(application, newer, NEW_PASSWORD)).status_code == 400


async def test_asking_for_a_link_answers_the_same_for_names_that_do_not_exist(application: Application) -> None:
    await token(application, "reader")
    await execute(application, "update users set email = 'reader@example.org'")
    known, unknown = [
        await application.client.post("/api/v1/auth/password-reset", json={"username": name})
        for name in ("reader", "nobody")
    ]
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from jobs") == 2, "the work is the same; the job looks the name up"
    assert len(await _mails(application.services)) == 1


async def test_the_outbox_is_for_its_owner_alone(application: Application) -> None:
    await _link(application)
    folder = application.services.settings.data_dir / "outbox"
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_guessing_is_slowed_down_for_a_name_and_address_whether_or_not_the_name_exists(
    application: Application,
) -> None:
    await application.add_user("reader")
    seen: dict[str, list[tuple[int, str]]] = {}
    for name in ("reader", "nobody"):
        answers = [await _sign_in(application, name, "a wrong password") for _ in range(7)]
        seen[name] = [(answer.status_code, answer.json()["detail"]) for answer in answers]
        assert int(answers[-1].headers["retry-after"]) >= 1
    assert seen["reader"] == seen["nobody"]
    assert [status for status, _ in seen["reader"]] == [401] * 5 + [429] * 2
    await execute(application, "update attempts set blocked_until = now() + interval '1 minute' where kind = 'sign-in'")
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 429, (
        "the right password tells nothing either"
    )
    await execute(application, "update attempts set blocked_until = now() - interval '1 second'")
    assert (await _sign_in(application, "reader", PASSWORD)).status_code == 200


async def test_parallel_guesses_do_not_outrun_the_count(application: Application) -> None:
    await application.add_user("reader")
    answers = await asyncio.gather(*(_sign_in(application, "reader", f"a wrong password {n}") for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 15


async def test_the_owner_signs_in_from_elsewhere_while_a_guesser_is_locked_out(application: Application) -> None:
    await application.add_user("reader")
    for _ in range(6):
        await _sign_in(application, "reader", "a wrong password")
    elsewhere: Any = httpx.ASGITransport(application.app, client=("192.0.2.9", 1))  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://annotomy.test") as client:
        body = {"username": "reader", "password": PASSWORD}
        assert (await client.post("/api/v1/auth/token", json=body)).status_code == 200


async def test_the_wait_doubles_with_each_further_failure(application: Application) -> None:
    waits: list[float] = []
    for _ in range(8):
        await execute(application, "update attempts set blocked_until = now() - interval '1 second'")
        await _sign_in(application, "nobody", "a wrong password")
        async with application.services.db.read(SYSTEM) as tx:
            waits.append(
                await tx.fetchval(
                    "select coalesce(extract(epoch from blocked_until - last_at), 0)::float8 from attempts"
                    " where kind = 'sign-in'"
                )
            )
    assert waits[4:] == [2, 4, 8, 16]


async def test_refusals_are_security_events(application: Application) -> None:
    await application.add_user("reader")
    await _sign_in(application, "reader", "a wrong password")
    assert (await event_types(application))[-1] == "security.sign_in_refused"


async def test_an_unknown_name_takes_as_long_as_a_wrong_password(application: Application) -> None:
    await application.add_user("reader")
    seconds: dict[str, list[float]] = {"reader": [], "nobody": []}
    await _sign_in(application, "warm", "a wrong password")
    for _ in range(4):
        for name, times in seconds.items():
            started = time.process_time()
            await _sign_in(application, name, "a wrong password")
            times.append(time.process_time() - started)
    ratio = statistics.median(seconds["nobody"]) / statistics.median(seconds["reader"])
    assert 0.5 < ratio < 2, f"without the decoy hash this is far below: {ratio:.2f}"


@pytest.mark.parametrize(
    ("password", "username"),
    [
        ("short", ""),
        ("elevenchars", ""),
        ("passwordpassword", ""),
        ("P@ssw0rd12345", ""),
        ("administrator!", ""),
        ("Welcome2024!!!", ""),
        ("aaaaaaaaaaaaaaaa", ""),
        ("abababababab", ""),
        ("qwertyuiopasdf", ""),
        ("123456789012345", ""),
        ("radiology.seoul", "radiology.seoul"),
        ("kimyounghee1234", "kimyounghee"),
        ("x" * 1025, ""),
    ],
)
def test_a_weak_password_is_refused(password: str, username: str) -> None:
    with pytest.raises(WeakPassword):
        require_strong(password, username=username)


@pytest.mark.parametrize(
    "password", ["seven green rivers of glass", "xk3-Vq9z-Tb2m", "김영희의 봄날은 길고 따뜻하다", "kR7#mQ2$vL9p"]
)
def test_a_long_password_of_any_letters_is_taken(password: str) -> None:
    require_strong(password, username="kimyounghee")


@given(st.text(max_size=40), st.text(max_size=12))
def test_the_rules_judge_any_text(password: str, username: str) -> None:
    try:
        require_strong(password, username=username)
    except WeakPassword:
        return
    assert len(password) >= 12


async def test_a_password_never_matches_where_there_is_none() -> None:
    assert not await password_matches(None, "a password that nobody has")


async def _sign_up(application: Application, username: str) -> httpx.Response:
    body = {"username": username, "email": f"{username}@example.org", "password": NEW_PASSWORD}
    return await application.client.post("/api/v1/auth/sign-up", json=body)


async def _sign_in(application: Application, username: str, password: str) -> httpx.Response:
    return await application.client.post("/api/v1/auth/token", json={"username": username, "password": password})


async def _change(application: Application, session: dict[str, Any], current: str, new: str) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await application.client.post(f"{ME}/password", json=body, headers=bearer(session))


async def _reset(application: Application, link: str, password: str) -> httpx.Response:
    body = {"token": link, "password": password}
    return await application.client.post("/api/v1/auth/password-reset/confirm", json=body)


async def _link(application: Application) -> str:
    await token(application, "reader")
    await execute(application, "update users set email = 'reader@example.org'")
    await application.client.post("/api/v1/auth/password-reset", json={"username": "reader@example.org"})
    found = re.search(r"/reset-password#(\S+)", _text((await _mails(application.services))[-1]))
    assert found is not None
    return found[1]


async def _mails(services: Services) -> list[Any]:
    await run_queued_jobs(services, HANDLERS)
    folder = services.settings.data_dir / "outbox"
    files: list[Path] = sorted(folder.glob("*.eml")) if folder.is_dir() else []
    return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in files]


def _text(mail: Any) -> str:
    return str(mail.get_content())
