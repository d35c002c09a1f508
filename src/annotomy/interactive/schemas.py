"""What the interactive API takes and gives. Voxels are [k, j, i]: slice, row, column of the series' volume, from 0."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

MAX_HINTS = 500
MAX_HINT_POINTS = 4000
"""Of one stroke."""

Index = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
At = tuple[Index, Index, Index]


class Hint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point, a stroke through several points, or a box (two corners, both inside) beyond which nothing is the object."""

    kind: Literal["point", "stroke", "box"]
    at_kji: Annotated[list[At], msgspec.Meta(min_length=1, max_length=MAX_HINT_POINTS)]
    on_object: bool = True
    """False: this is background. Of no meaning for a box."""


class NewInteractiveSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    project_id: UUID
    series_instance_uid: Annotated[str, msgspec.Meta(max_length=64)]


class Hints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All hints of the session, in the order of their making: leave the last out to undo it."""

    hints: Annotated[list[Hint], msgspec.Meta(max_length=MAX_HINTS)]


class Taken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the mask goes. `add` unites it with what the segment has, `replace` takes its place, `remove` takes it away."""

    segmentation_id: UUID
    segment_number: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    base_version: Annotated[int, msgspec.Meta(ge=1)]
    how: Literal["add", "replace", "remove"] = "add"


class TakenAs(msgspec.Struct, frozen=True):
    segmentation_id: UUID
    version: int


class InteractiveSession(msgspec.Struct, frozen=True):
    id: UUID
    project_id: UUID
    series_instance_uid: str
    state: Literal["ready", "waiting"]
    position: int
    """How many sessions are before it in the queue; 0 when it has a place."""
    hints: list[Hint]
    created_at: datetime
    used_at: datetime


class MaskHeader(msgspec.Struct, frozen=True):
    """Before the packed bits of the region, lowest bit first, in [k, j, i] order; outside of it nothing is set."""

    shape_kji: tuple[int, int, int]
    region: tuple[tuple[int, int, int], tuple[int, int, int]]
    """Its first voxel and the one behind its last."""
    voxels: int
    milliseconds: float
