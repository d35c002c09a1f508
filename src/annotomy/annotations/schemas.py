"""What the annotation routes take and answer, and what a version holds."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from annotomy.annotations.geometry import Geometry
from annotomy.annotations.measure import Concept, Measurement
from annotomy.http.reasons import Why

State = Literal["draft", "submitted", "approved", "rejected"]

Uid = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$", max_length=64)]
"""PS3.5 9.1."""
Kind = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""What the annotation is for, in the words of the tool: measurement, region, label, key_image, or a type of geometry."""
MAX_DESCRIPTION = 10_000
"""Characters: longer texts are reports."""
MAX_TOOL = 100
MAX_MEASUREMENTS = 100
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTES_BYTES = 64 << 10
Text = Annotated[str, msgspec.Meta(max_length=MAX_DESCRIPTION)]
Label = str | Concept


class NewAnnotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bound to a project and a study; to a series, an instance and a frame where it belongs to one."""

    project_id: UUID
    study_instance_uid: Uid
    series_instance_uid: Uid | None = None
    sop_instance_uid: Uid | None = None
    frame_number: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)] | None = None
    kind: Kind
    geometry: Geometry = Geometry(type="none")
    label: Label | None = None
    attributes: dict[str, Any] = {}
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MAX_MEASUREMENTS)] = []
    """What the client measured; the server's own are added."""
    description: Text = ""
    tool: Annotated[str, msgspec.Meta(max_length=MAX_TOOL)] = ""
    """What it was drawn with, and its version."""
    model: Annotated[str, msgspec.Meta(max_length=MAX_TOOL)] = ""
    """The AI model that it comes from; empty for a person's own."""
    tracking_uid: Uid | None = None
    """Names the same finding over exports and imports; made where none is given."""
    why: Why = ""


class Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people edit of an annotation."""

    kind: Kind
    geometry: Geometry = Geometry(type="none")
    label: Label | None = None
    attributes: dict[str, Any] = {}
    measurements: Annotated[list[Measurement], msgspec.Meta(max_length=MAX_MEASUREMENTS)] = []
    description: Text = ""


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """As it stands. The members come in the order of the columns that `rows.py` selects."""

    id: UUID
    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str | None
    sop_instance_uid: str | None
    frame_number: int | None
    tracking_uid: str
    kind: str
    tool: str
    model: str
    geometry: Geometry
    mapped_geometry: Geometry | None
    """The same shape in the other space, where the frame's place in the patient is known."""
    label: Label | None
    attributes: dict[str, Any]
    measurements: list[Measurement]
    description: str
    state: State
    version: int
    assigned_to: UUID | None
    """Who is to work on it next."""
    created_by: UUID
    author: str
    updated_by: UUID
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    study_stored: bool
    """Whether this archive holds the study."""


class Summary(msgspec.Struct, frozen=True, gc=False):
    """An annotation in a long list: without its geometry."""

    id: UUID
    study_instance_uid: str
    series_instance_uid: str | None
    sop_instance_uid: str | None
    frame_number: int | None
    kind: str
    geometry_type: str
    label: Label | None
    state: State
    version: int
    assigned_to: UUID | None
    created_by: UUID
    author: str
    updated_at: datetime
    deleted_at: datetime | None


class VersionEntry(msgspec.Struct, frozen=True):
    version: int
    action: str
    changed: list[str]
    why: str
    created_by: UUID
    author: str
    created_at: datetime


class Change(msgspec.Struct, frozen=True):
    member: str
    before: Any
    after: Any


class Version(msgspec.Struct, frozen=True):
    """One version: all that it held, and how it differs from the one before."""

    version: int
    action: str
    why: str
    created_by: UUID
    author: str
    created_at: datetime
    content: dict[str, Any]
    changes: list[Change]


class Restore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1)]
    why: Why = ""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a project works with annotations."""

    review_own: bool = False
    """Whether reviewers may approve and reject what they drew themselves."""
