"""Serves what `web/build.py` built: the web app at /, the foreign viewer OHIF at /ohif/, Swagger UI at /docs.

Files come from the package's `static/` folder only. Without them every page says how to build them.
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, route
from litestar.enums import HttpMethod
from litestar.params import FromPath

from annotomy.errors import NotFound

STATIC = Path(__file__).resolve().parent.parent / "static"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}

SERVER_PATHS = frozenset({"api", "dicom-web", "docs", "livez", "readyz", "startupz", "metrics"})
"""First path segments that are never a page of the web app: what is unknown below them is not found."""

ONE_YEAR_S = 365 * 24 * 3600
_HASHED_NAME = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$")

APP_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
OHIF_POLICY = APP_POLICY.replace("'wasm-unsafe-eval'", "'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval'")
"""OHIF starts from inline scripts and compiles templates; it reads DICOMweb only and holds no token that a script could take."""

DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles on its elements; everything else comes from here."""

NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Annotomy</title>
<style>body{font:15px/1.6 system-ui,sans-serif;background:#0a0e12;color:#dfe6ec;display:grid;place-items:center;height:100vh;margin:0}
code{background:#1f2832;padding:2px 6px;border-radius:3px}</style></head>
<body><main><h1>Annotomy</h1><p>The server runs, but its web app is not built. Run <code>./run serve</code> in the project folder.</p>
<p lang="ko">서버는 실행 중이지만 웹 앱이 아직 빌드되지 않았습니다. 프로젝트 폴더에서 <code>./run serve</code>를 실행하세요.</p>
</main></body></html>"""


@dataclass(frozen=True)
class Site:
    """One folder of built files with the policy of its pages."""

    folder: Path
    policy: str

    async def answer(self, request: Request[Any, Any, Any], path: str) -> Response[bytes] | Response[str]:
        """The file at `path`; the start page for a path that names no file, since pages route themselves."""
        file = await asyncio.to_thread(_existing_file, self.folder, path)
        if file is None and Path(path).suffix in MEDIA_TYPES:
            raise NotFound("There is no such file.")
        page = file is None or file.name == "index.html"
        if file is None:
            file = self.folder / "index.html"
            if not await asyncio.to_thread(file.is_file):
                return Response(NOT_BUILT, media_type=MediaType.HTML, status_code=503, headers=self._headers())
        gzipped = file.with_name(file.name + ".gz")
        headers = self._headers()
        headers["Cache-Control"] = (
            "no-cache" if page or not _is_hashed(file) else f"public, max-age={ONE_YEAR_S}, immutable"
        )
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", "") and await asyncio.to_thread(gzipped.is_file):
            headers["Content-Encoding"] = "gzip"
            served = gzipped
        else:
            served = file
        stat = await asyncio.to_thread(served.stat)
        headers["ETag"] = _etag(served.name, stat.st_mtime_ns, stat.st_size)
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(b"", status_code=304, headers=headers)
        media_type = MEDIA_TYPES.get(file.suffix, "application/octet-stream")
        return Response(await asyncio.to_thread(served.read_bytes), media_type=media_type, headers=headers)

    def _headers(self) -> dict[str, str]:
        return {
            "Content-Security-Policy": self.policy,
            # Both together make the page cross-origin isolated, which threads in wasm codecs need.
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Embedder-Policy": "require-corp",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }


APP = Site(STATIC / "app", APP_POLICY)
OHIF = Site(STATIC / "ohif", OHIF_POLICY)
DOCS = Site(STATIC / "docs", DOCS_POLICY)

_GET = [HttpMethod.GET, HttpMethod.HEAD]


@route(
    ["/ohif", "/ohif/{path:path}"],
    http_method=_GET,
    include_in_schema=False,
    opt={"exclude_from_compression": True, "permission": "anyone"},
)
async def ohif_files(request: Request[Any, Any, Any], path: FromPath[str] = "") -> Response[bytes] | Response[str]:
    """The foreign viewer."""
    return await OHIF.answer(request, path.lstrip("/"))


@route(
    ["/docs", "/docs/{path:path}"],
    http_method=_GET,
    include_in_schema=False,
    opt={"exclude_from_compression": True, "permission": "anyone"},
)
async def api_docs(request: Request[Any, Any, Any], path: FromPath[str] = "") -> Response[bytes] | Response[str]:
    """The API described by its own document, which needs no credential; trying a call does."""
    return await DOCS.answer(request, path.lstrip("/"))


@route(
    ["/", "/{path:path}"],
    http_method=_GET,
    include_in_schema=False,
    opt={"exclude_from_compression": True, "permission": "anyone"},
)
async def app_files(request: Request[Any, Any, Any], path: FromPath[str] = "") -> Response[bytes] | Response[str]:
    """The web app; its pages need no credential, their data does."""
    inside = path.lstrip("/")
    if inside.split("/", 1)[0] in SERVER_PATHS:
        raise NotFound("There is nothing at this address.")
    return await APP.answer(request, inside)


handlers = [ohif_files, api_docs, app_files]


def _existing_file(folder: Path, path: str) -> Path | None:
    """The file below `folder`, or None; never one outside of it, and none whose name starts with a dot."""
    if any(part.startswith(".") or "\\" in part or "\0" in part for part in path.split("/")):
        return None
    file = (folder / path).resolve()
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


def _is_hashed(file: Path) -> bool:
    return _HASHED_NAME.search(file.name) is not None and file.parent.name == "assets"


def _etag(name: str, mtime_ns: int, size: int) -> str:
    return '"' + hashlib.blake2b(f"{name} {mtime_ns} {size}".encode(), digest_size=12).hexdigest() + '"'
