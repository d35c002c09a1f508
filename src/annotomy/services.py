"""Services: every collaborator, built once from the settings (in `app.py`) and handed down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from annotomy.blobs.staging import S3Staging
from annotomy.db.engine import Database
from annotomy.ports import BlobStore, ModelRunner
from annotomy.settings import Settings


class Clock:
    """The time of day. Tests hand in one that they move."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    db: Database
    blobs: BlobStore
    runners: Mapping[str, ModelRunner]
    clock: Clock = field(default_factory=Clock)
    staging: S3Staging | None = None
    """Where clients send the parts of uploads directly; None: to this server."""
