"""What the matrices take and answer: a page of rows, a page of columns, and a cell for each pair of them.

`cells[r][c]` belongs to `rows.items[r]` and `columns.items[c]`. Each axis pages on its own, by its own cursor.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from annotomy.http.pages import Page
from annotomy.projects.schemas import PermissionLabel, RoleLabel

MAX_AXIS = 200
"""Rows or columns of one page: 40,000 cells are about 2 MB of JSON and more than a screen shows."""
DEFAULT_AXIS = 50
MAX_CHANGES = 1000
"""Of one write: each is an audit record, all of them one transaction of a second or two."""

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
"""Why, for the audit. Without names of patients."""


# -- roles x permissions ----------------------------------------------------------------------------------------------


class RoleRow(msgspec.Struct, frozen=True):
    name: str
    label: RoleLabel
    editable: bool
    """A role of the project's own; those of every project are read only."""
    members: int
    """How many have it now."""


class RoleMatrix(msgspec.Struct, frozen=True):
    """`cells` say whether the role has the permission itself; that `.all` includes `.own` is not spelled out."""

    rows: Page[RoleRow]
    columns: Page[PermissionLabel]
    cells: list[list[bool]]


class PermissionChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    permission: str
    granted: bool


class RoleMatrixChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason
    changes: Annotated[list[PermissionChange], msgspec.Meta(min_length=1, max_length=MAX_CHANGES)]


# -- users x projects -------------------------------------------------------------------------------------------------


class PersonRow(msgspec.Struct, frozen=True):
    user_id: UUID
    username: str
    display_name: str


class ProjectColumn(msgspec.Struct, frozen=True):
    id: UUID
    name: str


class MembershipCell(msgspec.Struct, frozen=True):
    role: str
    source: Literal["member", "group"]
    """A membership of the person's own, or one that a group gives."""
    group_id: UUID | None
    valid_from: datetime | None
    expires_at: datetime | None
    valid: bool
    """Whether it holds now."""


class MemberMatrix(msgspec.Struct, frozen=True):
    """Of the projects that one manages. A cell is null where the person is no member."""

    rows: Page[PersonRow]
    columns: Page[ProjectColumn]
    cells: list[list[MembershipCell | None]]


class MembershipChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user_id: UUID
    project_id: UUID
    role: str | None
    """null takes the person's own membership away."""
    valid_from: datetime | None = None
    expires_at: datetime | None = None


class MemberMatrixChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason
    changes: Annotated[list[MembershipChange], msgspec.Meta(min_length=1, max_length=MAX_CHANGES)]


# -- data x users -----------------------------------------------------------------------------------------------------

Access = Literal["full", "limited", "read_only", "none"]
AccessReason = Literal[
    "assigned", "rules",
    "read-only-role", "own-work-only", "part-assigned", "part-by-rules",
    "denied-by-rule", "outside-limits", "no-allow",
    "membership-not-valid", "role-without-study-read", "being-decided",
]  # fmt: skip
OwnRule = Literal["ALLOW", "DENY", "LIMIT"]


class DataRow(msgspec.Struct, frozen=True):
    """A study that the project holds and one sees, or with `level=series` a series."""

    study_instance_uid: str
    series_instance_uid: str | None
    study_date: date | None
    description: str
    """Of the study, or of the series."""
    modality: str
    """Of a series; of a study those of it, separated by backslashes."""


class MemberColumn(msgspec.Struct, frozen=True):
    user_id: UUID
    username: str
    display_name: str
    role: str


class AccessCell(msgspec.Struct, frozen=True):
    access: Access
    """full: sees all of it and may annotate or segment. limited: sees a part of it, or of others' work nothing. read_only: sees
    all of it and draws nothing. none: sees nothing."""
    reason: AccessReason
    rule: OwnRule | None
    """What a rule for this person says that names just this study or series; this is what a change writes."""


class DataMatrix(msgspec.Struct, frozen=True):
    rows: Page[DataRow]
    columns: Page[MemberColumn]
    cells: list[list[AccessCell]]


class AssignmentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For everybody: whether the project holds the study, or the series."""

    study_instance_uid: str
    assigned: bool
    series_instance_uid: str | None = None


class AccessChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For one member: what a rule that names just this study or series says; null takes such a rule away.

    The first DENY or LIMIT in a project without rules adds the ALLOW that holds there unwritten.
    """

    user_id: UUID
    study_instance_uid: str
    rule: OwnRule | None
    series_instance_uid: str | None = None


class DataMatrixChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason
    assignments: Annotated[list[AssignmentChange], msgspec.Meta(max_length=MAX_CHANGES)] = []
    """Written first."""
    changes: Annotated[list[AccessChange], msgspec.Meta(max_length=MAX_CHANGES)] = []


# -- what became of a write -------------------------------------------------------------------------------------------


class CellResult(msgspec.Struct, frozen=True):
    """Of the change at the same place in the request. One refusal keeps all: then nothing was written."""

    outcome: Literal["changed", "unchanged", "refused"]
    problem: dict[str, Any] | None = None


class MatrixResult(msgspec.Struct, frozen=True):
    results: list[CellResult]
    assignment_results: list[CellResult] = []
