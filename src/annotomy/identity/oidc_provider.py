"""A sign-in service that speaks OpenID Connect Core 1.0: its metadata, its keys, and whether an ID token is its own.

Everything is asked through the egress guard. Nothing that a token says of itself chooses how it is checked: algorithms
are a fixed list, the key comes from the service's own set by `kid` and has to fit the algorithm.
"""

import asyncio
import base64
import hashlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from annotomy.errors import Problem
from annotomy.http.egress import Egress
from annotomy.identity.errors import ProviderFailed
from annotomy.services import Services

log = structlog.get_logger(__name__)

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
METADATA_LIFETIME_S = 3600.0
KEYS_LIFETIME_S = 3600.0
REFETCH_PAUSE_S = 30.0
"""A token with an unknown `kid` makes us look for new keys, but forged ones do not make us hammer the service."""
LEEWAY_S = 30
"""Clocks of two hosts differ a little."""
MIN_RSA_BITS = 2048
MAX_KEYS = 100


class Metadata(msgspec.Struct, frozen=True):
    """OpenID Connect Discovery 1.0, 3; what we use of it."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: list[str] = msgspec.field(default_factory=lambda: ["client_secret_basic"])
    authorization_response_iss_parameter_supported: bool = False


class _TokenAnswer(msgspec.Struct, frozen=True):
    id_token: str


@dataclass(frozen=True, slots=True)
class _Key:
    key: RSAKey | ECKey | OKPKey
    algorithm: str


class Provider:
    """One for each process; remembers metadata and keys."""

    def __init__(self, services: Services, egress: Egress) -> None:
        self._settings = services.settings.oidc
        self._clock = services.clock
        self._egress = egress
        self._metadata: Metadata | None = None
        self._metadata_at = 0.0
        self._keys: dict[str, _Key] = {}
        self._keys_at = float("-inf")
        self._fetching = asyncio.Lock()

    @property
    def issuer(self) -> str:
        """Raises ProviderFailed where no service is set."""
        if self._settings.issuer is None:
            raise _refused("no sign-in service is set")
        return self._settings.issuer

    async def metadata(self) -> Metadata:
        async with self._fetching:
            if self._metadata is None or time.monotonic() - self._metadata_at > METADATA_LIFETIME_S:
                url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = msgspec.json.decode(await self._get(url), type=Metadata)
                if found.issuer != self.issuer:
                    raise _refused("the metadata names another issuer")
                if urlsplit(found.authorization_endpoint).scheme not in ("http", "https"):
                    raise _refused("the authorization endpoint is no web address")
                self._metadata, self._metadata_at = found, time.monotonic()
            return self._metadata

    async def authorization_url(self, *, redirect_uri: str, state: str, nonce: str, code_verifier: str) -> str:
        """OpenID Connect Core 3.1.2.1 with PKCE S256 (RFC 7636)."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = (await self.metadata()).authorization_endpoint
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode(query, quote_via=quote)

    async def exchange(self, *, code: str, code_verifier: str, redirect_uri: str) -> str:
        """The ID token for a code (RFC 6749 4.1.3)."""
        metadata = await self.metadata()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": code_verifier,
            "client_id": self._settings.client_id,
        }
        headers = {"Accept": "application/json"}
        if self._settings.client_secret is not None:
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                pair = f"{quote(self._settings.client_id, safe='')}:{quote(self._settings.client_secret, safe='')}"
                headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
            else:
                fields["client_secret"] = self._settings.client_secret
        try:
            answer = await self._egress.post_form(metadata.token_endpoint, fields, headers=headers)
        except Problem as problem:
            raise _refused("the token endpoint could not be asked", problem) from problem
        if answer.status != 200:
            raise _refused(f"the token endpoint answered {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=_TokenAnswer).id_token
        except msgspec.MsgspecError as error:
            raise _refused("the token endpoint's answer holds no ID token") from error

    async def verify(self, id_token: str, *, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is the service's own, meant for us, now, and for this sign-in (Core 3.1.3.7).
        Raises ProviderFailed."""
        try:
            key = await self._key_for(id_token)
            decoded = jwt.decode(id_token, key.key, algorithms=[key.algorithm])
            self._check(decoded.claims, nonce)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _refused(f"the ID token was refused: {type(error).__name__}") from error
        return decoded.claims

    def _check(self, claims: dict[str, Any], nonce: str) -> None:
        now = int(self._clock.now().timestamp())
        registry = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        registry.validate(claims)
        authorized = claims.get("azp")
        many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (many or authorized is not None) and authorized != self._settings.client_id:
            raise ValueError("azp")
        if not isinstance(claims["sub"], str) or not 1 <= len(claims["sub"]) <= 255:
            raise ValueError("sub")

    async def _key_for(self, id_token: str) -> _Key:
        header = msgspec.json.decode(_decoded(id_token.partition(".")[0]), type=dict[str, Any])
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ALGORITHMS:
            raise ValueError("alg")
        if not isinstance(kid, str) or not kid:
            raise ValueError("kid")
        age = time.monotonic() - self._keys_at
        if age > KEYS_LIFETIME_S or (kid not in self._keys and age > REFETCH_PAUSE_S):
            await self._fetch_keys()
        key = self._keys[kid]
        if key.algorithm != algorithm:
            raise ValueError("the key is of another algorithm")
        return key

    async def _fetch_keys(self) -> None:
        url = (await self.metadata()).jwks_uri
        self._keys_at = time.monotonic()  # before the call: a service that fails is not asked more often either
        found = msgspec.json.decode(await self._get(url), type=dict[str, Any]).get("keys", [])
        keys = {str(jwk["kid"]): _key(jwk) for jwk in found[:MAX_KEYS] if isinstance(jwk, dict) and jwk.get("kid")}
        self._keys = {kid: key for kid, key in keys.items() if key is not None}

    async def _get(self, url: str) -> bytes:
        try:
            answer = await self._egress.get(url, headers={"Accept": "application/json"})
        except Problem as problem:
            raise _refused("the service could not be asked", problem) from problem
        if answer.status != 200:
            raise _refused(f"the service answered {answer.status}")
        return answer.body


def _key(jwk: dict[str, Any]) -> _Key | None:
    """A key that signs, with the one algorithm that it may be used for; None for any other."""
    if jwk.get("use", "sig") != "sig":
        return None
    kind = (jwk.get("kty"), jwk.get("crv"))
    try:
        if kind == ("RSA", None):
            rsa = RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})
            strong = rsa.raw_value.key_size >= MIN_RSA_BITS
            found = _Key(rsa, "RS256") if strong else None
        elif kind == ("EC", "P-256"):
            found = _Key(ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")}), "ES256")
        elif kind == ("OKP", "Ed25519"):
            found = _Key(OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")}), "EdDSA")
        else:
            found = None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    named = {"Ed25519": "EdDSA"}.get(str(jwk.get("alg")), jwk.get("alg"))
    return found if found is None or named in (None, found.algorithm) else None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _refused(reason: str, cause: Problem | None = None) -> ProviderFailed:
    """The reason is for the log: a visitor gets no help with forging."""
    log.warning("oidc.refused", reason=reason, problem=cause.slug if cause else None)
    return ProviderFailed("The sign-in service's answer was refused.")
