"""Sign-in with OpenID Connect against a provider that runs: the whole flow, the table of forged tokens, accounts, groups."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from annotomy.actor import SYSTEM
from annotomy.app import open_services
from annotomy.identity.oidc import safe_path
from annotomy.services import Services
from annotomy.settings import Settings
from tests.identity.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdProvider
from tests.identity.people import ORIGIN, bearer, execute, token
from tests.support.application import Application

START = "/api/v1/auth/oidc/start"
ME = "/api/v1/users/me"
PROJECT = uuid4()

Forge = Callable[[OpenIdProvider, dict[str, Any], dict[str, Any]], str]


@pytest.fixture
def provider() -> Generator[OpenIdProvider]:
    running = OpenIdProvider()
    yield running
    running.close()


@pytest.fixture
async def services(database_url: str, tmp_path: Path, provider: OpenIdProvider) -> AsyncGenerator[Services]:
    """Set to sign in with the provider, which lies on loopback and is therefore allowed by name."""
    settings = Settings.from_environment(
        {
            "ANNOTOMY_DATA": str(tmp_path / "data"),
            "ANNOTOMY_OIDC_ISSUER": provider.issuer,
            "ANNOTOMY_OIDC_CLIENT_ID": CLIENT_ID,
            "ANNOTOMY_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "ANNOTOMY_OIDC_ADMIN_GROUP": "admins",
            "ANNOTOMY_OIDC_ROLES": f"readers={PROJECT}:annotator",
            "ANNOTOMY_EGRESS_ALLOW": "127.0.0.1",
        }
    )
    async with open_services(settings, database_url) as opened:
        yield opened


async def test_a_first_sign_in_makes_an_account_that_waits_for_approval(
    application: Application, provider: OpenIdProvider
) -> None:
    answer = await _sign_in(application)
    assert answer.headers["location"] == "/sign-in?problem=not-active"
    await _approve(application, "kim")
    answer = await _sign_in(application, next_path="/viewer/1.2.3")
    assert (answer.status_code, answer.headers["location"]) == (302, "/viewer/1.2.3")
    refreshed = await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)
    me = (await application.client.get(ME, headers=bearer(refreshed.json()))).json()
    assert (me["username"], me["display_name"]) == ("kim", "Kim")


@pytest.mark.parametrize(("kid", "algorithm"), [("rsa", "RS256"), ("ec", "ES256"), ("okp", "EdDSA")])
async def test_each_allowed_algorithm_signs_in(
    application: Application, provider: OpenIdProvider, kid: str, algorithm: str
) -> None:
    provider.kid, provider.algorithm = kid, algorithm
    await _sign_in(application)
    await _approve(application, "kim")
    assert (await _sign_in(application)).headers["location"] == "/"


def _public_pem(key: Any) -> bytes:
    return key.as_pem(private=False)


def _unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signature])


def _without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


FORGED: dict[str, Forge] = {
    "wrong signature": lambda p, h, c: p.sign(h, c, RSAKey.generate_key(2048)),
    "signature cut off": lambda p, h, c: p.sign(h, c)[:-10],
    "another issuer": lambda p, h, c: p.sign(h, {**c, "iss": "https://evil.example"}),
    "issuer with a slash": lambda p, h, c: p.sign(h, {**c, "iss": c["iss"] + "/"}),
    "another audience": lambda p, h, c: p.sign(h, {**c, "aud": "somebody-else"}),
    "no audience": lambda p, h, c: p.sign(h, _without(c, "aud")),
    "many audiences without azp": lambda p, h, c: p.sign(h, {**c, "aud": [CLIENT_ID, "other"]}),
    "another azp": lambda p, h, c: p.sign(h, {**c, "azp": "other"}),
    "expired": lambda p, h, c: p.sign(h, {**c, "exp": c["iat"] - 60}),
    "no expiry": lambda p, h, c: p.sign(h, _without(c, "exp")),
    "not yet valid": lambda p, h, c: p.sign(h, {**c, "nbf": c["iat"] + 600}),
    "issued in the future": lambda p, h, c: p.sign(h, {**c, "iat": c["iat"] + 600}),
    "no iat": lambda p, h, c: p.sign(h, _without(c, "iat")),
    "wrong nonce": lambda p, h, c: p.sign(h, {**c, "nonce": "another"}),
    "no nonce": lambda p, h, c: p.sign(h, _without(c, "nonce")),
    "no subject": lambda p, h, c: p.sign(h, _without(c, "sub")),
    "empty subject": lambda p, h, c: p.sign(h, {**c, "sub": ""}),
    "algorithm none": lambda p, h, c: _unsigned({**h, "alg": "none"}, c),
    "algorithm nOnE": lambda p, h, c: _unsigned({**h, "alg": "nOnE"}, c),
    "no algorithm": lambda p, h, c: _unsigned(_without(h, "alg"), c, "AA"),
    "HS256 with the public key": lambda p, h, c: p.sign(
        {**h, "alg": "HS256"}, c, OctKey.import_key(_public_pem(p.keys["rsa"]))
    ),
    "HS256 with the client secret": lambda p, h, c: p.sign(
        {**h, "alg": "HS256"}, c, OctKey.import_key(CLIENT_SECRET.encode())
    ),
    "an algorithm that is not on the list": lambda p, h, c: p.sign({**h, "alg": "RS512"}, c),
    "PS256 with the RSA key": lambda p, h, c: p.sign({**h, "alg": "PS256"}, c),
    "missing kid": lambda p, h, c: p.sign(_without(h, "kid"), c),
    "empty kid": lambda p, h, c: p.sign({**h, "kid": ""}, c),
    "kid that nobody knows": lambda p, h, c: p.sign({**h, "kid": "other"}, c),
    "kid that is a path": lambda p, h, c: p.sign({**h, "kid": "../../etc/passwd"}, c),
    "key confusion: RSA signature under the EC key's kid": lambda p, h, c: p.sign({**h, "kid": "ec"}, c, p.keys["rsa"]),
    "key confusion: ES256 under the RSA key's kid": lambda p, h, c: p.sign({**h, "alg": "ES256"}, c, p.keys["ec"]),
    "key confusion: another curve": lambda p, h, c: p.sign(
        {**h, "alg": "ES256", "kid": "ec"}, c, ECKey.generate_key("P-256")
    ),
    "a key of its own in the header": lambda p, h, c: _own_key(p, h, c),
    "a key address of its own in the header": lambda p, h, c: p.sign(
        {**h, "jku": "http://127.0.0.1:1/keys"}, c, RSAKey.generate_key(2048)
    ),
    "not a token": lambda p, h, c: "one.two.three",
    "empty": lambda p, h, c: "",
}


def _own_key(provider: OpenIdProvider, header: dict[str, Any], claims: dict[str, Any]) -> str:
    key = OKPKey.generate_key("Ed25519")
    return provider.sign({**header, "alg": "EdDSA", "kid": "okp", "jwk": key.as_dict(private=False)}, claims, key)


@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_id_token_is_refused(application: Application, provider: OpenIdProvider, forged: str) -> None:
    provider.forge = lambda header, claims: FORGED[forged](provider, header, claims)
    answer = await _sign_in(application)
    assert answer.headers["location"] == "/sign-in?problem=provider-failed"
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from external_identities") == 0
        assert await tx.fetchval("select count(*) from sessions") == 0
    provider.forge = None
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=not-active", "a genuine one passes"


async def test_only_the_browser_that_began_can_finish_and_only_once(
    application: Application, provider: OpenIdProvider
) -> None:
    await _sign_in(application)
    await _approve(application, "kim")
    back = await _at_provider(application)
    cookies = dict(application.client.cookies)
    application.client.cookies.clear()
    stranger = await application.client.get(back)
    assert stranger.headers["location"] == "/sign-in?problem=unauthenticated"
    application.client.cookies.update(cookies)
    other_state = await application.client.get(back.replace("state=", "state=x"))
    assert other_state.headers["location"] == "/sign-in?problem=unauthenticated"
    application.client.cookies.update(cookies)
    assert (await application.client.get(back)).headers["location"] == "/"
    application.client.cookies.update(cookies)
    assert (await application.client.get(back)).headers["location"] == "/sign-in?problem=unauthenticated"


async def test_an_answer_that_names_another_issuer_is_refused(
    application: Application, provider: OpenIdProvider
) -> None:
    provider.issuer_parameter = "https://evil.example"
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=provider-failed"
    provider.issuer_parameter = provider.issuer
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=not-active"


@pytest.mark.parametrize("change", [{"issuer": "https://evil.example"}, {"authorization_endpoint": "javascript:x"}])
async def test_metadata_of_another_issuer_is_refused(
    application: Application, provider: OpenIdProvider, change: dict[str, str]
) -> None:
    provider.metadata_changes = change
    answer = await application.client.get(START)
    assert answer.headers["location"] == "/sign-in?problem=provider-failed"


async def test_metadata_cannot_send_us_to_addresses_that_are_not_public(
    application: Application, provider: OpenIdProvider
) -> None:
    provider.metadata_changes = {"token_endpoint": "http://169.254.169.254/latest/meta-data"}
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=provider-failed"


async def test_a_new_key_is_looked_up_but_unknown_kids_do_not_make_us_ask_again_and_again(
    application: Application, provider: OpenIdProvider
) -> None:
    await _sign_in(application)
    provider.forge = lambda header, claims: provider.sign({**header, "kid": "unknown"}, claims)
    for _ in range(5):
        await _sign_in(application)
    assert provider.asked.count("/keys") == 1
    provider.forge = None
    provider.keys["new"] = provider.published["new"] = RSAKey.generate_key(2048)
    provider.kid = "new"
    application.app.state.provider._keys_at -= 31  # the pause between two looks is over
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=not-active"
    assert provider.asked.count("/keys") == 2


async def test_a_mail_address_links_nothing_and_a_taken_name_is_refused(
    application: Application, provider: OpenIdProvider
) -> None:
    await application.add_user("reader")
    await execute(application, "update users set email = 'reader@example.org' where username = 'reader'")
    provider.person = {"sub": "s2", "preferred_username": "kim", "email": "reader@example.org", "email_verified": True}
    await _sign_in(application)
    async with application.services.db.read(SYSTEM) as tx:
        owner = await tx.fetchval("select username from users u join external_identities e on e.user_id = u.id")
    assert owner == "kim"
    provider.person = {"sub": "s3", "preferred_username": "Reader"}
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=conflict"


async def test_the_owner_of_an_account_links_it_and_signs_in_with_it(
    application: Application, provider: OpenIdProvider
) -> None:
    reader = bearer(await token(application, "reader"))
    assert (await application.client.post("/api/v1/auth/oidc/link")).status_code == 401
    begun = await application.client.post("/api/v1/auth/oidc/link", headers=reader)
    linked = await application.client.get(await _follow(begun.json()["redirect_url"]))
    assert linked.headers["location"] == "/profile"
    assert (await application.client.get(f"{ME}/profile", headers=reader)).json()["linked"] is True
    assert (await _sign_in(application)).headers["location"] == "/"
    refreshed = await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)
    assert (await application.client.get(ME, headers=bearer(refreshed.json()))).json()["username"] == "reader"
    other = bearer(await token(application, "other"))
    begun = await application.client.post("/api/v1/auth/oidc/link", headers=other)
    taken = await application.client.get(await _follow(begun.json()["redirect_url"]))
    assert taken.headers["location"] == "/sign-in?problem=conflict"


async def test_groups_give_and_take_administration_and_roles(
    application: Application, provider: OpenIdProvider
) -> None:
    admin = await application.add_user("admin", is_admin=True)
    await execute(
        application, "insert into projects (id, name, created_by) values ($1, 'trial', $2)", PROJECT, admin.user_id
    )
    provider.person["groups"] = ["admins", "readers", "others"]
    await _sign_in(application)
    await _approve(application, "kim")
    assert await _standing(application) == (True, "annotator")
    provider.person["groups"] = ["readers"]
    await _sign_in(application)
    assert await _standing(application) == (False, "annotator")
    provider.person["groups"] = "readers"  # no list: no groups
    await _sign_in(application)
    assert await _standing(application) == (False, None)


async def test_a_suspended_account_does_not_come_in_by_this_door(
    application: Application, provider: OpenIdProvider
) -> None:
    await _sign_in(application)
    await _approve(application, "kim")
    await execute(application, "update users set state = 'suspended' where username = 'kim'")
    assert (await _sign_in(application)).headers["location"] == "/sign-in?problem=not-active"


async def test_who_has_no_password_here_proves_it_by_signing_in_again(
    application: Application, provider: OpenIdProvider
) -> None:
    await _sign_in(application)
    await _approve(application, "kim")
    await _sign_in(application)
    kim = bearer((await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)).json())
    await execute(application, "update sessions set authenticated_at = now() - interval '11 minutes'")
    refused = await application.client.post(f"{ME}/totp", headers=kim)
    assert (refused.status_code, refused.json()["methods"]) == (403, [])
    await _sign_in(application)
    kim = bearer((await application.client.post("/api/v1/auth/refresh", json={}, headers=ORIGIN)).json())
    assert (await application.client.post(f"{ME}/totp", headers=kim)).status_code == 200


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("/viewer/1.2?series=3", True),
        ("//evil.example", False),
        ("/\\evil.example", False),
        ("https://evil.example", False),
        ("/a\r\nSet-Cookie: x=y", False),
        ("", False),
    ],
)
def test_the_way_back_stays_on_this_server(path: str, safe: bool) -> None:
    assert safe_path(path) == (path if safe else "/")


async def test_the_sign_in_page_is_told_the_name_of_the_service(application: Application) -> None:
    ways = (await application.client.get("/api/v1/auth/ways")).json()
    assert ways["oidc"] == "OpenID Connect"


async def _sign_in(application: Application, *, next_path: str = "/") -> httpx.Response:
    return await application.client.get(await _at_provider(application, next_path=next_path))


async def _at_provider(application: Application, *, next_path: str = "/") -> str:
    begun = await application.client.get(START, params={"next_path": next_path})
    assert begun.status_code == 302, begun.text
    return await _follow(begun.headers["location"])


async def _follow(address: str) -> str:
    """Lets the provider answer; the path that it sends the browser back to."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(address)
    back = urlsplit(answer.headers["location"])
    assert parse_qs(back.query)["state"]
    return f"{back.path}?{back.query}"


async def _approve(application: Application, username: str) -> None:
    await execute(application, "update users set state = 'active' where username = $1", username)


async def _standing(application: Application) -> tuple[bool, str | None]:
    async with application.services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow(
            "select u.is_admin, (select role from project_members m where m.user_id = u.id and m.project_id = $1) as role"
            " from users u where username = 'kim'",
            PROJECT,
        )
    assert row is not None
    return row["is_admin"], row["role"]
