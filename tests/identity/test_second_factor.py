"""Second factors: each code once, each challenge once, clones found; and what demands a fresh proof."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from annotomy.actor import SYSTEM
from annotomy.identity.totp import STEP_S, code_at
from tests.identity.people import bearer, event_types, execute, refresh, token
from tests.identity.soft_authenticator import SoftAuthenticator
from tests.support.application import PASSWORD, Application

ME = "/api/v1/users/me"
HOST = {"Host": "localhost:8000"}
"""Passkeys work on localhost without further settings; the relying party is taken from there."""


def authenticator() -> SoftAuthenticator:
    return SoftAuthenticator(origin="http://localhost:8000", rp_id="localhost")


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_rfc_6238_appendix_b(seconds: int, code: str) -> None:
    assert code_at(b"12345678901234567890", seconds // STEP_S) == code


async def test_an_authenticator_is_enrolled_and_then_asked_for(application: Application) -> None:
    secret, recovery = await _enrol(application)
    assert len(set(recovery)) == 10
    challenge = await _password_step(application)
    assert challenge["type"] == "urn:annotomy:problem:second-factor-required"
    assert challenge["methods"] == ["totp", "recovery_code"]
    assert "access_token" not in challenge
    done = await _second_step(application, challenge, totp=_code(application, secret, steps=1))
    assert done.status_code == 200
    sessions = (await application.client.get("/api/v1/sessions", headers=bearer(done.json()))).json()["items"]
    assert next(one for one in sessions if one["current"])["methods"] == ["pwd", "otp", "mfa"]


async def test_the_set_up_shows_a_qr_code_that_holds_the_secret(application: Application) -> None:
    reader = bearer(await token(application, "reader"))
    begun = (await application.client.post(f"{ME}/totp", headers=reader)).json()
    uri = urlsplit(begun["uri"])
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert parse_qs(uri.query) == {"secret": [begun["secret"]], "issuer": ["Annotomy"]}
    assert begun["qr_svg"].startswith("<svg")


async def test_an_unconfirmed_authenticator_is_not_asked_for(application: Application) -> None:
    reader = bearer(await token(application, "reader"))
    await application.client.post(f"{ME}/totp", headers=reader)
    wrong = await application.client.post(f"{ME}/totp/confirm", json={"code": "000000"}, headers=reader)
    assert wrong.status_code == 403
    await token(application, "reader")


async def test_a_code_serves_once_even_in_parallel(application: Application) -> None:
    secret, _ = await _enrol(application)
    code = _code(application, secret, steps=1)
    challenges = [await _password_step(application) for _ in range(4)]
    answers = await asyncio.gather(*(_second_step(application, one, totp=code) for one in challenges))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    replayed = await _second_step(application, await _password_step(application), totp=code)
    assert replayed.status_code == 401


async def test_the_code_that_confirmed_the_set_up_is_spent(application: Application) -> None:
    secret, _ = await _enrol(application)
    again = await _second_step(application, await _password_step(application), totp=_code(application, secret))
    assert again.status_code == 401


async def test_a_transaction_serves_once_and_is_no_access_token(application: Application) -> None:
    secret, recovery = await _enrol(application)
    challenge = await _password_step(application)
    sent = {"Authorization": f"Bearer {challenge['transaction']}"}
    assert (await application.client.get(ME, headers=sent)).status_code == 401
    assert (await _second_step(application, challenge, recovery_code=recovery[0])).status_code == 200
    reused = await _second_step(application, challenge, totp=_code(application, secret, steps=1))
    assert reused.status_code == 401
    access = await token(application, "other")
    forged = await _second_step(application, {"transaction": access["access_token"]}, recovery_code=recovery[1])
    assert forged.status_code == 401


async def test_a_recovery_code_serves_once(application: Application) -> None:
    _, recovery = await _enrol(application)
    first = await _second_step(application, await _password_step(application), recovery_code=recovery[3].upper())
    second = await _second_step(application, await _password_step(application), recovery_code=recovery[3])
    assert (first.status_code, second.status_code) == (200, 401)
    profile = (await application.client.get(f"{ME}/profile", headers=bearer(first.json()))).json()
    assert profile["recovery_codes"] == 9


async def test_guessing_codes_is_limited_for_the_user_over_all_addresses(application: Application) -> None:
    await _enrol(application)
    seen: list[int] = []
    for n in range(24):
        transport: Any = httpx.ASGITransport(application.app, client=(f"192.0.2.{n}", 1))  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://annotomy.test") as client:
            body = {"username": "reader", "password": PASSWORD}
            challenge = (await client.post("/api/v1/auth/token", json=body)).json()
            guess = {"transaction": challenge["transaction"], "totp": "000000"}
            seen.append((await client.post("/api/v1/auth/token/second-factor", json=guess)).status_code)
    assert seen == [401] * 20 + [429] * 4


async def test_removing_the_authenticator_ends_the_question(application: Application) -> None:
    secret, _ = await _enrol(application)
    entered = await _second_step(
        application, await _password_step(application), totp=_code(application, secret, steps=1)
    )
    assert (await application.client.delete(f"{ME}/totp", headers=bearer(entered.json()))).status_code == 204
    await token(application, "reader")
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from recovery_codes") == 0


async def test_a_passkey_is_the_second_factor(application: Application) -> None:
    passkey = await _enrol_passkey(application)
    challenge = await _password_step(application, HOST)
    assert challenge["methods"] == ["passkey"]
    done = await _second_step(application, challenge, passkey=passkey.get(challenge["passkey_options"]), headers=HOST)
    assert done.status_code == 200, done.text


async def test_a_passkey_alone_signs_in(application: Application) -> None:
    passkey = await _enrol_passkey(application)
    done = await _passkey_sign_in(application, passkey)
    assert done.status_code == 200, done.text
    me = (await application.client.get(ME, headers=bearer(done.json()))).json()
    assert me["username"] == "reader"


def _clone(passkey: SoftAuthenticator) -> None:
    passkey.sign_count = 0


def _other_key(passkey: SoftAuthenticator) -> None:
    passkey.key = authenticator().key


def _phished(passkey: SoftAuthenticator) -> None:
    passkey.origin = "https://annotomy.evil.example"


def _other_site(passkey: SoftAuthenticator) -> None:
    passkey.rp_id = "evil.example"


def _unknown(passkey: SoftAuthenticator) -> None:
    passkey.credential_id = authenticator().credential_id


def _unverified(passkey: SoftAuthenticator) -> None:
    passkey.verifies_user = False


@pytest.mark.parametrize("misbehave", [_clone, _other_key, _phished, _other_site, _unknown, _unverified])
async def test_a_passkey_that_is_not_right_does_not_sign_in(
    application: Application, misbehave: Callable[[SoftAuthenticator], None]
) -> None:
    passkey = await _enrol_passkey(application)
    for _ in range(2):
        assert (await _passkey_sign_in(application, passkey)).status_code == 200
    misbehave(passkey)
    assert (await _passkey_sign_in(application, passkey)).status_code == 401


async def test_an_assertion_is_not_replayed(application: Application) -> None:
    passkey = await _enrol_passkey(application)
    passkey.sign_count = -1  # authenticators without a counter send zero for ever
    challenge = (await application.client.post("/api/v1/auth/passkey/challenge", headers=HOST)).json()
    body = {"transaction": challenge["transaction"], "passkey": passkey.get(challenge["options"])}
    answers = [await application.client.post("/api/v1/auth/passkey", json=body, headers=HOST) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401]


async def test_a_passkey_answers_only_its_own_challenge(application: Application) -> None:
    passkey = await _enrol_passkey(application)
    one, two = [
        (await application.client.post("/api/v1/auth/passkey/challenge", headers=HOST)).json() for _ in range(2)
    ]
    body = {"transaction": one["transaction"], "passkey": passkey.get(two["options"])}
    assert (await application.client.post("/api/v1/auth/passkey", json=body, headers=HOST)).status_code == 401


async def test_nobody_registers_a_passkey_on_somebody_elses_challenge(application: Application) -> None:
    reader, other = bearer(await token(application, "reader")), bearer(await token(application, "other"))
    begun = await application.client.post(f"{ME}/passkeys/challenge", headers={**reader, **HOST})
    body = {"transaction": begun.json()["transaction"], "passkey": authenticator().create(begun.json()["options"])}
    stolen = await application.client.post(f"{ME}/passkeys", json=body, headers={**other, **HOST})
    assert stolen.status_code == 403
    own = await application.client.post(f"{ME}/passkeys", json=body, headers={**reader, **HOST})
    assert own.status_code == 201
    again = await application.client.post(f"{ME}/passkeys", json=body, headers={**reader, **HOST})
    assert again.status_code == 403, "the challenge is spent"


async def test_administration_demands_a_fresh_proof_of_who_has_a_second_factor(application: Application) -> None:
    secret, _ = await _enrol(application, "admin")
    challenge = await _password_step(application, username="admin")
    entered = await _second_step(application, challenge, totp=_code(application, secret, steps=1))
    admin = bearer(entered.json())
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/api/v1/users", {"username": "new"}),
        ("POST", "/api/v1/api-keys", {"name": "k"}),
    ]
    for method, path, body in calls:
        assert (await application.client.request(method, path, json=body, headers=admin)).status_code == 201
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    for method, path, body in calls:
        refused = await application.client.request(method, path, json=body, headers=admin)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:annotomy:problem:step-up-required")
        assert refused.json()["methods"] == ["password", "totp", "recovery_code"]
    wrong = await application.client.post("/api/v1/auth/step-up", json={"password": "no"}, headers=admin)
    assert wrong.status_code == 403
    proven = await application.client.post("/api/v1/auth/step-up", json={"password": PASSWORD}, headers=admin)
    assert proven.status_code == 204
    assert (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=admin)).status_code == 201
    assert "session.proven" in await event_types(application)


async def test_a_refresh_is_no_fresh_proof(application: Application) -> None:
    reader = await token(application, "reader")
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    later = (await refresh(application, reader["refresh_token"])).json()
    assert (await application.client.post(f"{ME}/totp", headers=bearer(later))).status_code == 403


async def test_an_export_demands_a_fresh_proof_of_who_has_a_second_factor(application: Application) -> None:
    """Whole studies and series, and files of annotations and of masks. A key passes: its owner proved it."""
    secret, _ = await _enrol(application)
    challenge = await _password_step(application)
    entered = await _second_step(application, challenge, totp=_code(application, secret, steps=1))
    reader = bearer(entered.json())
    project = (await application.client.post("/api/v1/projects", json={"name": "p"}, headers=reader)).json()["id"]
    issued = (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=reader)).json()
    key = {"Authorization": f"Bearer {issued['key']}"}
    exports = (
        f"/api/v1/annotations/export?format=json&project_id={project}",
        f"/api/v1/segmentations/{project}/export",
        "/dicom-web/studies/1.2.3",
        "/dicom-web/studies/1.2.3/series/1.2.3.4",
    )
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    for path in exports:
        refused = await application.client.get(path, headers=reader)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:annotomy:problem:step-up-required"), path
        assert (await application.client.get(path, headers=key)).status_code in (200, 404), path
    one = await application.client.get("/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5", headers=reader)
    assert one.status_code == 404, "viewers fetch single objects while one reads"
    proven = await application.client.post("/api/v1/auth/step-up", json={"password": PASSWORD}, headers=reader)
    assert proven.status_code == 204, proven.text
    for path in exports:
        assert (await application.client.get(path, headers=reader)).status_code in (200, 404), path


async def test_a_password_is_not_enough_in_a_session_that_never_saw_the_second_factor(application: Application) -> None:
    old = bearer(await token(application, "reader"))
    secret, _ = await _enrol(application)
    refused = await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=old)
    assert refused.json()["methods"] == ["totp", "recovery_code"]
    code = {"totp": _code(application, secret, steps=1)}
    assert (await application.client.post("/api/v1/auth/step-up", json=code, headers=old)).status_code == 204
    assert (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=old)).status_code == 201


async def test_a_passkey_proves_again(application: Application) -> None:
    passkey = await _enrol_passkey(application)
    reader = {**bearer((await _passkey_sign_in(application, passkey)).json()), **HOST}
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    begun = (await application.client.post("/api/v1/auth/step-up/passkey", headers=reader)).json()
    body = {"transaction": begun["transaction"], "passkey": passkey.get(begun["options"])}
    assert (await application.client.post("/api/v1/auth/step-up", json=body, headers=reader)).status_code == 204
    assert (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=reader)).status_code == 201


async def test_who_has_no_second_factor_is_not_asked_unless_the_installation_says_so(application: Application) -> None:
    admin = bearer(await token(application, "admin"))
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    assert (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=admin)).status_code == 201


async def _enrol(application: Application, username: str = "reader") -> tuple[bytes, list[str]]:
    headers = bearer(await token(application, username))
    begun = (await application.client.post(f"{ME}/totp", headers=headers)).json()
    secret = base64.b32decode(begun["secret"])
    code = {"code": _code(application, secret)}
    confirmed = await application.client.post(f"{ME}/totp/confirm", json=code, headers=headers)
    assert confirmed.status_code == 200, confirmed.text
    return secret, confirmed.json()["recovery_codes"]


async def _enrol_passkey(application: Application) -> SoftAuthenticator:
    headers = {**bearer(await token(application, "reader")), **HOST}
    begun = (await application.client.post(f"{ME}/passkeys/challenge", headers=headers)).json()
    passkey = authenticator()
    body = {"transaction": begun["transaction"], "passkey": passkey.create(begun["options"]), "name": "phone"}
    added = await application.client.post(f"{ME}/passkeys", json=body, headers=headers)
    assert added.status_code == 201, added.text
    return passkey


async def _passkey_sign_in(application: Application, passkey: SoftAuthenticator) -> httpx.Response:
    challenge = (await application.client.post("/api/v1/auth/passkey/challenge", headers=HOST)).json()
    body = {"transaction": challenge["transaction"], "passkey": passkey.get(challenge["options"])}
    return await application.client.post("/api/v1/auth/passkey", json=body, headers=HOST)


async def _password_step(
    application: Application, headers: dict[str, str] | None = None, username: str = "reader"
) -> dict[str, Any]:
    body = {"username": username, "password": PASSWORD}
    answer = await application.client.post("/api/v1/auth/token", json=body, headers=headers)
    assert answer.status_code == 401, answer.text
    return answer.json()


async def _second_step(
    application: Application, challenge: dict[str, Any], headers: dict[str, str] | None = None, **proof: Any
) -> httpx.Response:
    body = {"transaction": challenge["transaction"], **proof}
    return await application.client.post("/api/v1/auth/token/second-factor", json=body, headers=headers)


def _code(application: Application, secret: bytes, *, steps: int = 0) -> str:
    return code_at(secret, int(application.services.clock.now().timestamp()) // STEP_S + steps)
