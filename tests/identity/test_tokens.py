"""Access tokens: the table of forged ones is refused; keys are published, rotated and retired."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from annotomy.actor import SYSTEM
from annotomy.errors import Conflict, Unauthenticated
from annotomy.identity.seal import Seal, SealError
from annotomy.identity.tokens import SEAL_PURPOSE, TokenSigner, add_signing_key, retire_signing_key
from annotomy.services import Services
from annotomy.settings import Settings
from tests.identity.people import bearer, token
from tests.support.application import Application

Forge = Callable[[dict[str, Any], dict[str, Any], OKPKey], str]
SECRET = "a secret of thirty-two characters or more"


def _signed(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
    return jwt.encode(header, claims, key, algorithms=[header["alg"]])


def _unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signature])


def _public_bytes(key: OKPKey) -> bytes:
    return base64.urlsafe_b64decode(str(key.as_dict(private=False)["x"]) + "=")


FORGED: dict[str, Forge] = {
    "another key under our kid": lambda h, c, k: _signed(h, c, OKPKey.generate_key("Ed25519")),
    "another issuer": lambda h, c, k: _signed(h, {**c, "iss": "https://evil.example"}, k),
    "another audience": lambda h, c, k: _signed(h, {**c, "aud": "someone-else"}, k),
    "no audience": lambda h, c, k: _signed(h, {n: v for n, v in c.items() if n != "aud"}, k),
    "expired": lambda h, c, k: _signed(h, {**c, "exp": c["iat"] - 1}, k),
    "without expiry": lambda h, c, k: _signed(h, {n: v for n, v in c.items() if n != "exp"}, k),
    "not yet valid": lambda h, c, k: _signed(h, {**c, "nbf": c["iat"] + 3600}, k),
    "without session": lambda h, c, k: _signed(h, {n: v for n, v in c.items() if n != "sid"}, k),
    "another session": lambda h, c, k: _signed(h, {**c, "sid": str(uuid4())}, k),
    "another user with this session": lambda h, c, k: _signed(h, {**c, "sub": str(uuid4())}, k),
    "without jti": lambda h, c, k: _signed(h, {n: v for n, v in c.items() if n != "jti"}, k),
    "another type": lambda h, c, k: _signed({**h, "typ": "JWT"}, c, k),
    "a transaction's type": lambda h, c, k: _signed({**h, "typ": "annotomy-transaction+jwt"}, c, k),
    "without kid": lambda h, c, k: _signed({n: v for n, v in h.items() if n != "kid"}, c, k),
    "a kid that nobody knows": lambda h, c, k: _signed({**h, "kid": "0000"}, c, k),
    "a kid that is a path": lambda h, c, k: _signed({**h, "kid": "../../../dev/null"}, c, k),
    "algorithm none": lambda h, c, k: _unsigned({**h, "alg": "none"}, c),
    "algorithm None": lambda h, c, k: _unsigned({**h, "alg": "None"}, c),
    "HS256 with the public key": lambda h, c, k: _signed({**h, "alg": "HS256"}, c, OctKey.import_key(_public_bytes(k))),
    "HS256 with an empty key": lambda h, c, k: _unsigned({**h, "alg": "HS256"}, c, "AA"),
    "ES256 under our kid": lambda h, c, k: _signed({**h, "alg": "ES256"}, c, ECKey.generate_key("P-256")),
    "RS256 under our kid": lambda h, c, k: _signed({**h, "alg": "RS256"}, c, RSAKey.generate_key(2048)),
    "its own key in the header": lambda h, c, k: _own_key(h, c),
    "a signature cut off": lambda h, c, k: _signed(h, c, k)[:-8],
    "claims changed behind the signature": lambda h, c, k: _changed(_signed(h, c, k)),
    "not a token": lambda h, c, k: "one.two.three",
    "empty": lambda h, c, k: "..",
}


def _own_key(header: dict[str, Any], claims: dict[str, Any]) -> str:
    key = OKPKey.generate_key("Ed25519")
    return _signed({**header, "jwk": key.as_dict(private=False)}, claims, key)


def _changed(signed: str) -> str:
    header, body, signature = signed.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims["exp"] += 3600
    return f"{header}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_token_is_refused(application: Application, forged: str) -> None:
    answer = await token(application, "reader")
    header, claims = _parts(answer["access_token"])
    key = await _signing_key(application.services)
    genuine = {"Authorization": f"Bearer {_signed(header, claims, key)}"}
    assert (await application.client.get("/api/v1/users/me", headers=genuine)).status_code == 200, (
        "the forger's tools work"
    )
    sent = {"Authorization": f"Bearer {FORGED[forged](header, claims, key)}"}
    refused = await application.client.get("/api/v1/users/me", headers=sent)
    assert refused.status_code == 401
    assert refused.json()["type"] == "urn:annotomy:problem:unauthenticated"


async def test_a_token_says_what_the_contract_says_and_no_more(application: Application) -> None:
    header, claims = _parts((await token(application, "reader"))["access_token"])
    assert header == {"alg": "EdDSA", "kid": header["kid"], "typ": "at+jwt"}
    assert set(claims) == {"iss", "aud", "sub", "sid", "jti", "iat", "exp"}
    assert claims["exp"] - claims["iat"] == 600


async def test_the_published_keys_verify_tokens_and_are_public_parts_only(application: Application) -> None:
    access = (await token(application, "reader"))["access_token"]
    published = (await application.client.get("/api/v1/auth/jwks.json")).json()
    assert all(not {"d", "p", "q", "k"} & set(key) for key in published["keys"])
    keys = {key["kid"]: key for key in published["keys"]}
    key = OKPKey.import_key(keys[_parts(access)[0]["kid"]])
    assert jwt.decode(access, key, algorithms=["EdDSA"]).claims["iss"] == "annotomy"


async def test_a_rotated_key_signs_and_the_old_one_verifies_until_it_is_retired(application: Application) -> None:
    services = application.services
    old, other_process = await TokenSigner.load(services), await TokenSigner.load(services)
    before = _sign(old, services)
    async with services.db.write(SYSTEM) as tx:
        old_kid = await tx.fetchval("select kid from signing_keys")
        new_kid = await add_signing_key(tx, Seal(None))
    await old.reload()
    after = _sign(old, services)
    assert _parts(after)[0]["kid"] == new_kid
    other_process._loaded_at -= 2  # pyright: ignore[reportPrivateUsage] - it has not just looked for keys
    for one in (before, after):
        assert await other_process.verify(one), "a process that heard nothing looks the new key up"
    async with services.db.write(SYSTEM) as tx:
        await retire_signing_key(tx, old_kid)
    await old.reload()
    with pytest.raises(Unauthenticated):
        await old.verify(before)
    assert await old.verify(after)


async def test_the_key_that_signs_cannot_be_retired(application: Application) -> None:
    async with application.services.db.write(SYSTEM) as tx:
        kid = await tx.fetchval("select kid from signing_keys")
        with pytest.raises(Conflict):
            await retire_signing_key(tx, kid)


async def test_a_token_dies_at_its_expiry_even_when_it_was_just_used(application: Application) -> None:
    answer = await token(application, "reader")
    assert (await application.client.get("/api/v1/users/me", headers=bearer(answer))).status_code == 200
    now = application.services.clock.now
    object.__setattr__(application.services.clock, "now", lambda: now() + timedelta(minutes=10, seconds=1))
    assert (await application.client.get("/api/v1/users/me", headers=bearer(answer))).status_code == 401


def test_what_is_sealed_opens_with_the_same_secret_and_purpose_only() -> None:
    sealed = Seal(SECRET).close(b"value", purpose="one")
    assert b"value" not in sealed
    assert Seal(SECRET).open(sealed, purpose="one") == b"value"
    for seal, purpose in ((Seal(SECRET), "two"), (Seal(SECRET + "!"), "one"), (Seal(None), "one")):
        with pytest.raises(SealError):
            seal.open(sealed, purpose=purpose)
    assert Seal(SECRET).open(Seal(None).close(b"value", purpose="one"), purpose="one") == b"value"


async def test_with_a_secret_the_signing_key_is_not_in_the_database(services: Services) -> None:
    settings = Settings.from_environment({"ANNOTOMY_DATA": str(services.settings.data_dir), "ANNOTOMY_SECRET": SECRET})
    signer = await TokenSigner.load(Services(settings, services.db, services.blobs, {}))
    async with services.db.read(SYSTEM) as tx:
        stored = await tx.fetchval("select private_key from signing_keys")
    assert b'"d"' not in stored
    assert b'"d"' in Seal(SECRET).open(stored, purpose=SEAL_PURPOSE)
    assert await signer.verify(_sign(signer, services))


def _sign(signer: TokenSigner, services: Services) -> str:
    return signer.sign(user_id=UUID(int=1), session_id=UUID(int=2), now=services.clock.now())


def _parts(signed: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in signed.split(".")[:2]
    )
    return header, claims


async def _signing_key(services: Services) -> OKPKey:
    async with services.db.read(SYSTEM) as tx:
        stored = await tx.fetchval("select private_key from signing_keys order by created_at desc limit 1")
    return OKPKey.import_key(json.loads(Seal(None).open(stored, purpose=SEAL_PURPOSE)))
