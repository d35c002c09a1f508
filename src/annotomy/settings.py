"""Every setting, read once from the environment. Each default gives a working single machine.

No other module reads the environment: they receive `Settings` through `Services`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str | None
    """ANNOTOMY_DATABASE_URL: a PostgreSQL (14 or newer) of one's own; None starts the private one in the data folder."""
    pool_size: int
    """ANNOTOMY_DATABASE_POOL: connections of each process; 4 is the knee on 2 cores (docs/decisions/0001)."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    """ANNOTOMY_HTTP_HOST: address that the server listens on."""
    port: int
    """ANNOTOMY_HTTP_PORT"""
    processes: int
    """ANNOTOMY_HTTP_PROCESSES: HTTP processes behind the one port; default: number of cores."""


class DimseSettings(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    """ANNOTOMY_DIMSE_PORT: port of the DICOM listener; 0 turns it off."""
    ae_title: str
    """ANNOTOMY_AE_TITLE: our application entity title, at most 16 characters."""
    open: bool
    """ANNOTOMY_DIMSE_OPEN=1: any calling AE may store, query and retrieve as the user `dimse`. For tests only."""


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    username: str
    """ANNOTOMY_ADMIN_USERNAME: the administrator made at the first start."""
    password: str | None
    """ANNOTOMY_ADMIN_PASSWORD: their password; None: one is generated and printed once."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    upload_bytes: int
    """ANNOTOMY_UPLOAD_LIMIT_BYTES: largest single upload (default 64 GiB); refused before its bytes are read."""
    instance_bytes: int
    """ANNOTOMY_INSTANCE_LIMIT_BYTES: largest single DICOM instance (default 4 GiB)."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: Path
    """ANNOTOMY_DATA: data folder (`./data`)."""
    blobs_url: str | None
    """ANNOTOMY_BLOBS_URL: file:///..., s3://bucket?endpoint=...; None: `blobs` in the data folder."""
    database: DatabaseSettings
    http: HttpSettings
    dimse: DimseSettings
    admin: AdminSettings
    limits: LimitSettings
    workers_inline: int
    """ANNOTOMY_WORKERS_INLINE: job workers that `serve` starts (1); 0: only external ones."""
    audit_key: str | None
    """ANNOTOMY_AUDIT_KEY: 32 bytes in base64 that seal the audit, the same on every host; None: kept in the data folder."""
    log_level: str
    """ANNOTOMY_LOG_LEVEL: debug, info, warning or error."""
    metrics_dir: Path | None
    """PROMETHEUS_MULTIPROC_DIR: where several HTTP processes share their counters; `serve` sets it."""
    postgres_bin: Path | None
    """ANNOTOMY_POSTGRES_BIN: folder with the PostgreSQL binaries of the private server; None: found by itself."""

    @property
    def spool_dir(self) -> Path:
        """Where what is too large for memory lies while it arrives; beside local blobs, so that it can be renamed."""
        return self.data_dir / "blobs" / "tmp"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Raises ValueError that names the variable and what it takes."""
        env = os.environ if environ is None else environ
        return cls(
            data_dir=Path(env.get("ANNOTOMY_DATA", "data")).absolute(),
            blobs_url=env.get("ANNOTOMY_BLOBS_URL") or None,
            database=DatabaseSettings(
                url=env.get("ANNOTOMY_DATABASE_URL") or None,
                pool_size=_whole(env, "ANNOTOMY_DATABASE_POOL", 4, low=1, high=64),
            ),
            http=HttpSettings(
                host=env.get("ANNOTOMY_HTTP_HOST", "127.0.0.1"),
                port=_whole(env, "ANNOTOMY_HTTP_PORT", 8000, low=0, high=65535),
                processes=_whole(env, "ANNOTOMY_HTTP_PROCESSES", os.cpu_count() or 1, low=1, high=256),
            ),
            dimse=DimseSettings(
                port=_whole(env, "ANNOTOMY_DIMSE_PORT", 11112, low=0, high=65535),
                ae_title=_ae_title(env.get("ANNOTOMY_AE_TITLE", "ANNOTOMY")),
                open=_flag(env, "ANNOTOMY_DIMSE_OPEN"),
            ),
            admin=AdminSettings(
                username=env.get("ANNOTOMY_ADMIN_USERNAME", "admin"),
                password=env.get("ANNOTOMY_ADMIN_PASSWORD") or None,
            ),
            limits=LimitSettings(
                upload_bytes=_whole(env, "ANNOTOMY_UPLOAD_LIMIT_BYTES", 64 << 30, low=1, high=1 << 60),
                instance_bytes=_whole(env, "ANNOTOMY_INSTANCE_LIMIT_BYTES", 4 << 30, low=1, high=1 << 60),
            ),
            workers_inline=_whole(env, "ANNOTOMY_WORKERS_INLINE", 1, low=0, high=64),
            audit_key=env.get("ANNOTOMY_AUDIT_KEY") or None,
            log_level=env.get("ANNOTOMY_LOG_LEVEL", "info").lower(),
            metrics_dir=Path(env["PROMETHEUS_MULTIPROC_DIR"]) if env.get("PROMETHEUS_MULTIPROC_DIR") else None,
            postgres_bin=Path(env["ANNOTOMY_POSTGRES_BIN"]) if env.get("ANNOTOMY_POSTGRES_BIN") else None,
        )


def _whole(env: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} takes a whole number, not {text!r}") from None
    if not low <= value <= high:
        raise ValueError(f"{name} takes a number from {low} to {high}, not {value}")
    return value


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "0")
    if text not in ("0", "1", ""):
        raise ValueError(f"{name} takes 0 or 1, not {text!r}")
    return text == "1"


def _ae_title(text: str) -> str:
    if not 1 <= len(text.strip()) <= 16:  # PS3.5 6.2: AE is 16 bytes at most
        raise ValueError("ANNOTOMY_AE_TITLE takes 1 to 16 characters")
    return text.strip()
