"""What the routes of remotes take and answer."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from annotomy.remotes.addresses import DicomwebAddress, DimseAddress

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Uid = Annotated[str, msgspec.Meta(pattern=r"^[0-9.]{1,64}$")]


class NewRemote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    kind: Literal["dicomweb", "dimse"]
    dicomweb: DicomwebAddress | None = None
    dimse: DimseAddress | None = None
    project_ids: Annotated[list[UUID], msgspec.Meta(max_length=1000)] | None = None
    """The projects that it is open to; none: nobody uses it yet. Left out of a change: as they are."""


class RemoteAnswer(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    kind: Literal["dicomweb", "dimse"]
    dicomweb: DicomwebAddress | None
    dimse: DimseAddress | None
    has_secrets: bool
    project_ids: list[UUID]
    created_at: datetime
    updated_at: datetime
    version: int


class OpenRemote(msgspec.Struct, frozen=True):
    """As members of a project see it."""

    id: UUID
    name: str
    kind: Literal["dicomweb", "dimse"]


class Echo(msgspec.Struct, frozen=True):
    ok: bool
    milliseconds: int
    problem: dict[str, Any] | None
    """What is wrong, as any other problem of this API."""


class RemoteRow(msgspec.Struct, frozen=True):
    """A study or series at the remote."""

    study_instance_uid: str
    series_instance_uid: str | None
    attributes: dict[str, Any]
    """DICOM JSON (PS3.18 F.2) as answered, without what rules hide."""
    held: bool
    """Something of it is in this archive, where the asker sees it."""
    state: Literal["present", "missing", "gone"] = "present"
    """Of a list that was kept: whether the remote still named it when it was looked at last."""


class NewRetrieval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    project_id: UUID
    study_instance_uid: Uid
    series_instance_uid: Uid | None = None


class Retrieval(msgspec.Struct, frozen=True):
    id: UUID
    remote_id: UUID
    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str | None
    job_id: UUID
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float
    expected: int | None
    """Instances that the remote names; null until it was asked."""
    present: int
    """Of these, in the project."""
    refused: dict[str, int]
    """By problem slug: instances that came and were not kept."""
    problem: dict[str, Any] | None
    created_at: datetime


class NewPush(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    project_id: UUID
    study_instance_uid: Uid
    series_instance_uid: Uid | None = None
    sop_instance_uids: Annotated[list[Uid], msgspec.Meta(max_length=10_000)] | None = None


class PushedInstance(msgspec.Struct, frozen=True):
    sop_instance_uid: str
    state: Literal["pending", "sent", "refused", "committed"]
    reason: str


class Push(msgspec.Struct, frozen=True):
    id: UUID
    remote_id: UUID
    project_id: UUID
    study_instance_uid: str
    state: Literal["queued", "sent", "committed", "dead", "cancelled"]
    attempts: int
    next_attempt_at: datetime | None
    problem: dict[str, Any] | None
    counts: dict[str, int]
    """Instances by state."""
    instances: list[PushedInstance] | None
    """Of one push; null in lists."""
    created_at: datetime
    finished_at: datetime | None


class SyncSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Literal["on", "paused"] = "on"
    every_minutes: Annotated[int, msgspec.Meta(ge=5, le=10_080)] = 60
    days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 30
    missing_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    grace_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 7


class Sync(msgspec.Struct, frozen=True):
    remote_id: UUID
    state: Literal["on", "paused"]
    every_minutes: int
    days: int
    missing_share: float
    grace_days: int
    outcome: Literal["none", "complete", "guarded", "failed"]
    """`guarded`: the answer was not believed, and nothing was marked as missing."""
    why: str
    running: bool
    last_run_at: datetime | None
    last_complete_at: datetime | None
    next_run_at: datetime
    present: int
    missing: int
    gone: int


class SyncRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    believe: bool = False
    """An administrator has looked: what is missing in the next answer is missing, however much it is."""
