"""What the project routes take and answer."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from annotomy.projects.attributes import Kind
from annotomy.projects.visibility import Effect, Level, Operator


class NewProject(msgspec.Struct, frozen=True):
    name: str
    description: str = ""


class Project(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    description: str
    role: str
    """The asker's own."""
    created_at: datetime


class NewMember(msgspec.Struct, frozen=True):
    user_id: UUID
    role: str
    valid_from: datetime | None = None
    expires_at: datetime | None = None


class Member(msgspec.Struct, frozen=True):
    user_id: UUID
    username: str
    display_name: str
    role: str
    expires_at: datetime | None
    valid_from: datetime | None = None
    via_group: UUID | None = None
    """The group that gives this membership; null for one of the user's own."""


class NewGroup(msgspec.Struct, frozen=True):
    name: str


class Group(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    user_ids: list[UUID]


class NewGroupMember(msgspec.Struct, frozen=True):
    user_id: UUID


class Candidate(msgspec.Struct, frozen=True):
    """Somebody, or a group, who can be given a role in a project."""

    kind: Literal["user", "group"]
    id: UUID
    name: str
    display_name: str
    member: bool
    """Has a role in the project already."""


class NewProjectGroup(msgspec.Struct, frozen=True):
    group_id: UUID
    role: str
    valid_from: datetime | None = None
    expires_at: datetime | None = None


class ProjectGroup(msgspec.Struct, frozen=True):
    group_id: UUID
    name: str
    role: str
    valid_from: datetime | None
    expires_at: datetime | None


class NewProjectStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str
    series_instance_uid: str | None = None
    """Only this series of it."""
    sop_instance_uid: str | None = None
    """Only this instance of it."""


class ProjectStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str
    added_at: datetime
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None


class RoleLabel(msgspec.Struct, frozen=True):
    en: str
    ko: str


class Role(msgspec.Struct, frozen=True):
    name: str
    label: RoleLabel
    permissions: list[str]
    scope: Literal["project", "global"]
    project_id: UUID | None = None
    """The project that defines it; null for a role that every project has."""


class PermissionLabel(msgspec.Struct, frozen=True):
    name: str
    label: RoleLabel
    scope: str


class Roles(msgspec.Struct, frozen=True):
    items: list[Role]
    permissions: list[PermissionLabel]
    next: None = None
    total: int | None = None


class NewRole(msgspec.Struct, frozen=True):
    name: str
    permissions: list[str]
    label: RoleLabel | None = None


class GlobalRole(msgspec.Struct, frozen=True):
    user_id: UUID
    username: str
    role: str


class NewGlobalRole(msgspec.Struct, frozen=True):
    user_id: UUID
    role: str
    """One of the roles of GET /roles whose scope is global."""
    reason: str = ""
    """Why, for the audit."""


class NewRule(msgspec.Struct, frozen=True):
    effect: Effect
    level: Level
    attribute: str
    operator: Operator
    value: Any = True
    """A text (EQ, NE, CONTAINS), a list of texts (IN), two texts from and to, either empty (RANGE), true or false (PRESENT)."""
    role: str | None = None
    user_id: UUID | None = None
    valid_from: datetime | None = None
    expires_at: datetime | None = None


class RuleChange(msgspec.Struct, frozen=True):
    """A merge patch: what is left out stays."""

    effect: Effect | msgspec.UnsetType = msgspec.UNSET
    level: Level | msgspec.UnsetType = msgspec.UNSET
    attribute: str | msgspec.UnsetType = msgspec.UNSET
    operator: Operator | msgspec.UnsetType = msgspec.UNSET
    value: Any | msgspec.UnsetType = msgspec.UNSET
    role: str | msgspec.UnsetType | None = msgspec.UNSET
    user_id: UUID | msgspec.UnsetType | None = msgspec.UNSET
    valid_from: datetime | msgspec.UnsetType | None = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET


class RuleAnswer(msgspec.Struct, frozen=True):
    id: UUID
    project_id: UUID
    effect: Effect
    level: Level
    attribute: str
    operator: Operator
    value: Any
    role: str | None
    user_id: UUID | None
    valid_from: datetime | None
    expires_at: datetime | None
    created_at: datetime
    version: int


class PreviewStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str
    study_date: date | None
    study_description: str
    series: int
    instances: int


class Preview(msgspec.Struct, frozen=True):
    """What a person sees of the project now."""

    user_id: UUID
    studies: int
    series: int
    instances: int
    items: list[PreviewStudy]
    """The newest studies, with counts of what that person sees in them."""


class DraftPreview(msgspec.Struct, frozen=True):
    """Whom to look as, and the rules that the project would have instead of those that it has."""

    user_id: UUID
    rules: list[NewRule]


class RuleAttribute(msgspec.Struct, frozen=True):
    name: str
    """The keyword of DICOM."""
    level: Level
    """Where its values are kept."""
    kind: Kind


class PersonsAccess(msgspec.Struct, frozen=True):
    """Why a person sees a study through a project, or why not."""

    project_id: UUID
    user_id: UUID
    username: str
    role: str
    sees: Literal["nothing", "part", "all"]
    series: int
    instances: int
    why: str
    """member-of-a-project-without-rules, rules, membership-not-valid, role-without-study-read."""
    allowed_by: list[UUID]
    """Rules that apply to the person and match something in the study."""
    limited_by: list[UUID]
    denied_by: list[UUID]


class StudyAccess(msgspec.Struct, frozen=True):
    study_instance_uid: str
    items: list[PersonsAccess]


class NewAccessRequest(msgspec.Struct, frozen=True):
    project_id: UUID
    reason: str
    scope: Literal["full", "limited", "read_only"] = "read_only"
    until: datetime | None = None
    """How long access is asked for."""


class AccessRequest(msgspec.Struct, frozen=True):
    id: UUID
    project_id: UUID
    user_id: UUID
    username: str
    scope: str
    reason: str
    state: str
    until: datetime | None
    created_at: datetime
    decided_at: datetime | None
    note: str


class Decision(msgspec.Struct, frozen=True):
    note: str = ""
    role: str | None = None
    """When approved: instead of the role that the scope stands for."""
    expires_at: datetime | None = None
    """When approved: the end of the membership, else what was asked for."""


class SharedStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str
    series_instance_uids: list[str] = msgspec.field(default_factory=list[str])
    """None named: the whole study, what is added to it later included."""


ShareAction = Literal["view", "download"]


class NewShareLink(msgspec.Struct, frozen=True):
    name: str
    """For the list, and shown to who opens the link."""
    studies: list[SharedStudy]
    expires_at: datetime
    actions: list[ShareAction] = msgspec.field(default_factory=lambda: list[ShareAction](["view"]))
    """`view`: pictures, frames and attributes. `download`: whole DICOM instances as well, where the maker may export."""
    password: str | None = None
    max_uses: int | None = None
    """How often the link may be opened; absent: as often as one likes."""


class IssuedShareLink(msgspec.Struct, frozen=True):
    id: UUID
    token: str
    """Shown once; only its hash is kept."""
    path: str
    """Of the page that opens the link, behind this server's address. The token stands in the fragment, which browsers keep
    to themselves."""
    expires_at: datetime


class ShareLink(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    created_by: UUID
    creator: str
    actions: list[ShareAction]
    state: Literal["active", "expired", "used_up", "revoked"]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    uses: int
    max_uses: int | None
    has_password: bool
    revoked_at: datetime | None
    studies: list[SharedStudy]
    """Of what the link names, what the asker sees."""


class OpenShareLink(msgspec.Struct, frozen=True):
    token: str
    password: str | None = None
    cookie: bool = False
    """Pages of ours: the access token goes into the viewers' cookie as well."""


class SharedAccess(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int
    """Seconds."""
    name: str
    actions: list[ShareAction]
    expires_at: datetime
    """Of the link."""
    studies: list[SharedStudy]
