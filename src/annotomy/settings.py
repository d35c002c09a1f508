"""Every setting, read once from the environment. Each default gives a working single machine.

No other module reads the environment: they receive `Settings` through `Services`.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
    public_url: str | None
    """ANNOTOMY_PUBLIC_URL: address in browsers, as https://annotomy.example.org; links in mails, passkeys and OIDC need it anywhere but on localhost."""
    trusted_proxies: tuple[str, ...]
    """ANNOTOMY_TRUSTED_PROXIES: addresses or networks, separated by commas, whose X-Forwarded-For and -Proto are believed (none)."""
    rate_limit: int
    """ANNOTOMY_RATE_LIMIT: requests a second that each process answers to one user (2000); 0: no limit."""
    egress_allow: tuple[str, ...]
    """ANNOTOMY_EGRESS_ALLOW: host names, addresses or networks, separated by commas, that may be called although they are not public (none)."""


class DimseSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    """ANNOTOMY_DIMSE_HOST: address that the DICOM listener listens on; 0.0.0.0 for modalities on other hosts."""
    port: int
    """ANNOTOMY_DIMSE_PORT: port of the DICOM listener; 0 turns it off."""
    ae_title: str
    """ANNOTOMY_AE_TITLE: our application entity title, at most 16 characters."""
    open: bool
    """ANNOTOMY_DIMSE_OPEN=1: any calling AE may store, query and retrieve as the user `dimse`. For tests only."""
    associations: int
    """ANNOTOMY_DIMSE_ASSOCIATIONS: associations at once (64); others are told to try again."""
    associations_for_peer: int
    """ANNOTOMY_DIMSE_ASSOCIATIONS_FOR_PEER: of these, at once from one calling AE title (16)."""
    tls_cert: Path | None
    """ANNOTOMY_DIMSE_TLS_CERT: our certificate chain (PEM); with it the listener speaks TLS only."""
    tls_key: Path | None
    """ANNOTOMY_DIMSE_TLS_KEY: its private key (PEM); None: it stands in the certificate's file."""
    tls_ca: Path | None
    """ANNOTOMY_DIMSE_TLS_CA: authorities (PEM) that must have signed a calling peer's certificate; None: any peer."""


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    username: str
    """ANNOTOMY_ADMIN_USERNAME: the administrator made at the first start."""
    password: str | None
    """ANNOTOMY_ADMIN_PASSWORD: their password; None: one is generated and printed once."""


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True):
    secret: str | None
    """ANNOTOMY_SECRET: at least 32 characters; encrypts signing keys and authenticator secrets in the database. None: they lie there in the clear."""
    sign_up: bool
    """ANNOTOMY_SIGN_UP=1: people may ask for an account, which an administrator approves (on); 0: only administrators make accounts."""
    session_idle_minutes: int
    """ANNOTOMY_SESSION_IDLE_MINUTES: a session that was not refreshed for so long is over (720)."""
    session_days: int
    """ANNOTOMY_SESSION_DAYS: the longest that a session lives, used or not (30)."""
    step_up_minutes: int
    """ANNOTOMY_STEP_UP_MINUTES: how long a proof of identity counts for export, share links, keys, user administration and one's own security settings (10)."""
    step_up_always: bool
    """ANNOTOMY_STEP_UP_ALWAYS=1: that proof is demanded of everyone; by default only of who has a second factor (off)."""
    smtp_url: str | None
    """ANNOTOMY_SMTP_URL: smtps://user:password@host:465 or smtp://host:587 (STARTTLS where offered); None: mails are files in `outbox` of the data folder."""
    mail_from: str
    """ANNOTOMY_MAIL_FROM: the sender of mails."""


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True):
    issuer: str | None
    """ANNOTOMY_OIDC_ISSUER: the provider's issuer address; None: no sign-in with OpenID Connect."""
    client_id: str
    """ANNOTOMY_OIDC_CLIENT_ID: our client at the provider."""
    client_secret: str | None
    """ANNOTOMY_OIDC_CLIENT_SECRET: its secret; None for a public client."""
    name: str
    """ANNOTOMY_OIDC_NAME: what the button on the sign-in page calls the provider."""
    scopes: str
    """ANNOTOMY_OIDC_SCOPES: what is asked for (openid profile email)."""
    groups_claim: str
    """ANNOTOMY_OIDC_GROUPS_CLAIM: the claim of the ID token that lists a person's groups (groups)."""
    admin_group: str | None
    """ANNOTOMY_OIDC_ADMIN_GROUP: members are administrators, and who leaves it is none at the next sign-in; None: not decided by the provider."""
    roles: tuple[tuple[str, str, str], ...]
    """ANNOTOMY_OIDC_ROLES: group=project id:role, separated by commas; such members come and go with the group at each sign-in."""
    auto_approve: bool
    """ANNOTOMY_OIDC_AUTO_APPROVE=1: a first sign-in makes an active account; by default it waits for an administrator (off)."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    upload_bytes: int
    """ANNOTOMY_UPLOAD_LIMIT_BYTES: largest single upload (default 64 GiB); refused before its bytes are read."""
    instance_bytes: int
    """ANNOTOMY_INSTANCE_LIMIT_BYTES: largest single DICOM instance (default 4 GiB)."""
    user_stored_bytes: int
    """ANNOTOMY_USER_QUOTA_BYTES: what the uploads of one user may add to the archive (0: no limit); an administrator allows others."""
    user_in_flight_bytes: int
    """ANNOTOMY_USER_IN_FLIGHT_BYTES: what the open uploads of one user may hold together (0: no limit)."""
    user_open_uploads: int
    """ANNOTOMY_USER_OPEN_UPLOADS: open uploads of one user (10000); 0: no limit."""
    project_stored_bytes: int
    """ANNOTOMY_PROJECT_QUOTA_BYTES: what uploads into one project may add to the archive (0: no limit)."""
    project_in_flight_bytes: int
    """ANNOTOMY_PROJECT_IN_FLIGHT_BYTES: what the open uploads into one project may hold together (0: no limit)."""
    project_open_uploads: int
    """ANNOTOMY_PROJECT_OPEN_UPLOADS: open uploads into one project (0: no limit)."""


class ObjectStoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    access_key_id: str | None
    """AWS_ACCESS_KEY_ID: key of the object store; with it and its secret, clients of an s3:// store may send parts to it directly."""
    secret_access_key: str | None
    """AWS_SECRET_ACCESS_KEY: its secret."""
    session_token: str | None
    """AWS_SESSION_TOKEN: of temporary credentials."""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    threads: int
    """ANNOTOMY_MODEL_THREADS: threads of one running model (1); more workers use a machine better than more threads."""
    memory_bytes: int
    """ANNOTOMY_MODEL_MEMORY_BYTES: address space of the process that runs models (default 8 GiB)."""
    timeout_s: int
    """ANNOTOMY_MODEL_TIMEOUT_S: seconds after which a prediction is stopped (900)."""


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    key: str | None
    """ANNOTOMY_AUDIT_KEY: 32 bytes in base64 that seal the audit, the same on every host; None: kept in the data folder."""
    retention_years: int
    """ANNOTOMY_AUDIT_RETENTION_YEARS: how long records stay in the database before `annotomy audit drop` may take them out (6: HIPAA; at least 2: PIPA)."""
    time_zone: str
    """ANNOTOMY_TIME_ZONE: in which the monthly audit review counts months and office hours (Asia/Seoul)."""
    office_hours: tuple[int, int]
    """ANNOTOMY_OFFICE_HOURS: on working days, from-to in hours; reads outside of them are shown in the monthly audit review (8-19)."""
    bulk_studies: int
    """ANNOTOMY_BULK_STUDIES: downloads of files of more studies than this in 24 hours by one user need a reason (20); 0: never."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: Path
    """ANNOTOMY_DATA: data folder (`./data`)."""
    blobs_url: str | None
    """ANNOTOMY_BLOBS_URL: file:///..., s3://bucket?endpoint=...; None: `blobs` in the data folder."""
    database: DatabaseSettings
    http: HttpSettings
    dimse: DimseSettings
    admin: AdminSettings
    identity: IdentitySettings
    oidc: OidcSettings
    limits: LimitSettings
    object_store: ObjectStoreSettings
    models: ModelSettings
    share_link_days: int
    """ANNOTOMY_SHARE_LINK_DAYS: the longest that a share link lives (90); 0: none can be made."""
    workers_inline: int
    """ANNOTOMY_WORKERS_INLINE: job workers that `serve` starts (1); 0: only external ones."""
    audit: AuditSettings
    language: str
    """ANNOTOMY_LANGUAGE: `ko` or `en` for people at the terminal; default: that of LC_ALL, LC_MESSAGES or LANG."""
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
                public_url=_origin(env, "ANNOTOMY_PUBLIC_URL"),
                trusted_proxies=_networks(env, "ANNOTOMY_TRUSTED_PROXIES"),
                rate_limit=_whole(env, "ANNOTOMY_RATE_LIMIT", 2000, low=0, high=1_000_000),
                egress_allow=_words(env, "ANNOTOMY_EGRESS_ALLOW"),
            ),
            dimse=DimseSettings(
                host=env.get("ANNOTOMY_DIMSE_HOST", "127.0.0.1"),
                port=_whole(env, "ANNOTOMY_DIMSE_PORT", 11112, low=0, high=65535),
                ae_title=_ae_title(env.get("ANNOTOMY_AE_TITLE", "ANNOTOMY")),
                open=_flag(env, "ANNOTOMY_DIMSE_OPEN"),
                associations=_whole(env, "ANNOTOMY_DIMSE_ASSOCIATIONS", 64, low=1, high=4096),
                associations_for_peer=_whole(env, "ANNOTOMY_DIMSE_ASSOCIATIONS_FOR_PEER", 16, low=1, high=4096),
                tls_cert=_path(env, "ANNOTOMY_DIMSE_TLS_CERT"),
                tls_key=_path(env, "ANNOTOMY_DIMSE_TLS_KEY"),
                tls_ca=_path(env, "ANNOTOMY_DIMSE_TLS_CA"),
            ),
            admin=AdminSettings(
                username=env.get("ANNOTOMY_ADMIN_USERNAME", "admin"),
                password=env.get("ANNOTOMY_ADMIN_PASSWORD") or None,
            ),
            identity=IdentitySettings(
                secret=_secret(env, "ANNOTOMY_SECRET"),
                sign_up=_flag(env, "ANNOTOMY_SIGN_UP", default="1"),
                session_idle_minutes=_whole(env, "ANNOTOMY_SESSION_IDLE_MINUTES", 12 * 60, low=1, high=60 * 24 * 365),
                session_days=_whole(env, "ANNOTOMY_SESSION_DAYS", 30, low=1, high=365),
                step_up_minutes=_whole(env, "ANNOTOMY_STEP_UP_MINUTES", 10, low=1, high=60 * 24),
                step_up_always=_flag(env, "ANNOTOMY_STEP_UP_ALWAYS"),
                smtp_url=env.get("ANNOTOMY_SMTP_URL") or None,
                mail_from=env.get("ANNOTOMY_MAIL_FROM") or "annotomy@localhost",
            ),
            oidc=OidcSettings(
                issuer=env.get("ANNOTOMY_OIDC_ISSUER") or None,
                client_id=env.get("ANNOTOMY_OIDC_CLIENT_ID", ""),
                client_secret=env.get("ANNOTOMY_OIDC_CLIENT_SECRET") or None,
                name=env.get("ANNOTOMY_OIDC_NAME") or "OpenID Connect",
                scopes=env.get("ANNOTOMY_OIDC_SCOPES") or "openid profile email",
                groups_claim=env.get("ANNOTOMY_OIDC_GROUPS_CLAIM") or "groups",
                admin_group=env.get("ANNOTOMY_OIDC_ADMIN_GROUP") or None,
                roles=_group_roles(env, "ANNOTOMY_OIDC_ROLES"),
                auto_approve=_flag(env, "ANNOTOMY_OIDC_AUTO_APPROVE"),
            ),
            limits=LimitSettings(
                upload_bytes=_whole(env, "ANNOTOMY_UPLOAD_LIMIT_BYTES", 64 << 30, low=1, high=1 << 60),
                instance_bytes=_whole(env, "ANNOTOMY_INSTANCE_LIMIT_BYTES", 4 << 30, low=1, high=1 << 60),
                user_stored_bytes=_whole(env, "ANNOTOMY_USER_QUOTA_BYTES", 0, low=0, high=1 << 60),
                user_in_flight_bytes=_whole(env, "ANNOTOMY_USER_IN_FLIGHT_BYTES", 0, low=0, high=1 << 60),
                user_open_uploads=_whole(env, "ANNOTOMY_USER_OPEN_UPLOADS", 10_000, low=0, high=1 << 30),
                project_stored_bytes=_whole(env, "ANNOTOMY_PROJECT_QUOTA_BYTES", 0, low=0, high=1 << 60),
                project_in_flight_bytes=_whole(env, "ANNOTOMY_PROJECT_IN_FLIGHT_BYTES", 0, low=0, high=1 << 60),
                project_open_uploads=_whole(env, "ANNOTOMY_PROJECT_OPEN_UPLOADS", 0, low=0, high=1 << 30),
            ),
            object_store=ObjectStoreSettings(
                access_key_id=env.get("AWS_ACCESS_KEY_ID") or None,
                secret_access_key=env.get("AWS_SECRET_ACCESS_KEY") or None,
                session_token=env.get("AWS_SESSION_TOKEN") or None,
            ),
            models=ModelSettings(
                threads=_whole(env, "ANNOTOMY_MODEL_THREADS", 1, low=1, high=256),
                memory_bytes=_whole(env, "ANNOTOMY_MODEL_MEMORY_BYTES", 8 << 30, low=1 << 30, high=1 << 50),
                timeout_s=_whole(env, "ANNOTOMY_MODEL_TIMEOUT_S", 900, low=1, high=86_400),
            ),
            share_link_days=_whole(env, "ANNOTOMY_SHARE_LINK_DAYS", 90, low=0, high=365),
            workers_inline=_whole(env, "ANNOTOMY_WORKERS_INLINE", 1, low=0, high=64),
            audit=AuditSettings(
                key=env.get("ANNOTOMY_AUDIT_KEY") or None,
                retention_years=_whole(env, "ANNOTOMY_AUDIT_RETENTION_YEARS", 6, low=2, high=100),
                time_zone=_time_zone(env, "ANNOTOMY_TIME_ZONE", "Asia/Seoul"),
                office_hours=_hours(env, "ANNOTOMY_OFFICE_HOURS", "8-19"),
                bulk_studies=_whole(env, "ANNOTOMY_BULK_STUDIES", 20, low=0, high=1_000_000),
            ),
            language=_language(env),
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


def _time_zone(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    try:
        ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"{name} takes a name of the time zone database, such as Asia/Seoul, not {text!r}") from None
    return text


def _hours(env: Mapping[str, str], name: str, default: str) -> tuple[int, int]:
    first, _, last = (env.get(name) or default).partition("-")
    if not (first.isdigit() and last.isdigit() and 0 <= int(first) < int(last) <= 24):
        raise ValueError(f"{name} takes two hours of a day, such as {default}")
    return int(first), int(last)


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _flag(env: Mapping[str, str], name: str, *, default: str = "0") -> bool:
    text = env.get(name) or default
    if text not in ("0", "1"):
        raise ValueError(f"{name} takes 0 or 1, not {text!r}")
    return text == "1"


def _language(env: Mapping[str, str]) -> str:
    names = ("ANNOTOMY_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set, as POSIX has it
    chosen = next((env[name] for name in names if env.get(name)), "en")
    return "ko" if chosen.lower().startswith("ko") else "en"


def _words(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in env.get(name, "").split(",") if word.strip())


def _networks(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    words = _words(env, name)
    for word in words:
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError:
            raise ValueError(f"{name} takes addresses or networks separated by commas, not {word!r}") from None
    return words


def _origin(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name, "").rstrip("/")
    if not text:
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{name} takes an address without a path, as https://annotomy.example.org, not {text!r}")
    return text


def _secret(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name) or None
    if text is not None and len(text) < 32:  # short secrets can be guessed from a stolen database
        raise ValueError(f"{name} takes at least 32 characters")
    return text


def _group_roles(env: Mapping[str, str], name: str) -> tuple[tuple[str, str, str], ...]:
    found: list[tuple[str, str, str]] = []
    for word in _words(env, name):
        group, is_given, rest = word.rpartition("=")
        project, has_role, role = rest.partition(":")
        try:
            found.append((group, str(UUID(project)), role))
        except ValueError:
            is_given = ""
        if not (group and is_given and has_role and role):
            raise ValueError(f"{name} takes group=project id:role separated by commas, not {word!r}")
    return tuple(found)


def _ae_title(text: str) -> str:
    if not 1 <= len(text.strip()) <= 16:  # PS3.5 6.2: AE is 16 bytes at most
        raise ValueError("ANNOTOMY_AE_TITLE takes 1 to 16 characters")
    return text.strip()
