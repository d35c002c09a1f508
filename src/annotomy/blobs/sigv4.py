"""Presigned S3 requests: AWS Signature Version 4 in the query, which needs no header that the sender could not set.

Who holds such an address may send that one request - this method, this key, these headers - until it expires, and needs no
credential. Pure: given the same arguments it makes the same address.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

import msgspec

UNSIGNED = "UNSIGNED-PAYLOAD"
"""The body is not part of the signature; `content-md5` among the signed headers binds it where that is wanted."""


class Credentials(msgspec.Struct, frozen=True):
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


def presigned(
    method: str,
    url: str,
    *,
    credentials: Credentials,
    region: str,
    now: datetime,
    lifetime_s: int,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """The address to send `method` to, with exactly `headers` (any case) besides those that every client sends.

    `url` is absolute, its path already percent-encoded, without a query. `now` is UTC.
    """
    parts = urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signed = {"host": parts.netloc} | {name.lower(): value.strip() for name, value in (headers or {}).items()}
    names = ";".join(sorted(signed))
    asked = dict(query or {}) | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(lifetime_s),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.session_token:
        asked["X-Amz-Security-Token"] = credentials.session_token
    canonical_query = "&".join(f"{_encoded(key)}={_encoded(asked[key])}" for key in sorted(asked, key=_encoded))
    canonical = "\n".join(
        [
            method,
            parts.path or "/",
            canonical_query,
            "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
            names,
            UNSIGNED,
        ]
    )
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{parts.scheme}://{parts.netloc}{parts.path or '/'}?{canonical_query}&X-Amz-Signature={signature}"


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
