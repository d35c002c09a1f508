"""A small OpenID provider on loopback: discovery, keys, the authorization endpoint (whoever comes is `person`), the token
endpoint with client authentication and PKCE. `forge` lets a test put anything in the place of the ID token."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "annotomy-client", "client secret"


class OpenIdProvider:
    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": RSAKey.generate_key(2048),
            "ec": ECKey.generate_key("P-256"),
            "okp": OKPKey.generate_key("Ed25519"),
        }
        self.published = dict(self.keys)
        self.kid, self.algorithm = "rsa", "RS256"
        self.person: dict[str, Any] = {"sub": "subject-1", "preferred_username": "kim", "name": "Kim"}
        self.forge: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
        self.metadata_changes: dict[str, Any] = {}
        self.issuer_parameter: str | None = None
        self.asked: list[str] = []
        """Paths of the requests that came, in order."""
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(urlsplit(self.path).path)
                status, headers, body = provider._get(self.path)
                self._send(status, headers, body)

            def do_POST(self) -> None:
                provider.asked.append(urlsplit(self.path).path)
                form = self.rfile.read(int(self.headers["content-length"])).decode()
                status, body = provider._token(parse_qs(form), self.headers.get("authorization", ""))
                self._send(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def claims(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.person,
        }

    def sign(self, header: dict[str, Any], claims: dict[str, Any], key: Any = None) -> str:
        return jwt.encode(header, claims, key or self.keys[self.kid], algorithms=[header["alg"]])

    def _get(self, target: str) -> tuple[int, dict[str, str], bytes]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/.well-known/openid-configuration":
            return 200, {"Content-Type": "application/json"}, json.dumps(self._metadata()).encode()
        if path == "/keys":
            keys = [{**key.as_dict(private=False), "kid": kid, "use": "sig"} for kid, key in self.published.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps({"keys": keys}).encode()
        if path == "/authorize":
            one = {name: values[0] for name, values in query.items()}
            assert one["response_type"] == "code"
            assert one["client_id"] == CLIENT_ID
            assert one["code_challenge_method"] == "S256"
            assert "openid" in one["scope"].split()
            code = secrets.token_urlsafe(16)
            self._codes[code] = one
            back = {"code": code, "state": one["state"]}
            if self.issuer_parameter is not None:
                back["iss"] = self.issuer_parameter
            return 302, {"Location": f"{one['redirect_uri']}?{urlencode(back)}"}, b""
        return 404, {}, b""

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            **self.metadata_changes,
        }

    def _token(self, form: dict[str, list[str]], authorization: str) -> tuple[int, dict[str, Any]]:
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if (unquote(name), unquote(secret)) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form["code"][0], None)
        if asked is None or form["redirect_uri"][0] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        header, claims = {"alg": self.algorithm, "kid": self.kid}, self.claims(asked["nonce"])
        id_token = self.forge(header, claims) if self.forge else self.sign(header, claims)
        return 200, {"access_token": secrets.token_urlsafe(8), "token_type": "Bearer", "id_token": id_token}
