"""What the project routes take and answer."""

from datetime import datetime
from uuid import UUID

import msgspec


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
    expires_at: datetime | None = None


class Member(msgspec.Struct, frozen=True):
    user_id: UUID
    username: str
    display_name: str
    role: str
    expires_at: datetime | None


class NewProjectStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str


class ProjectStudy(msgspec.Struct, frozen=True):
    study_instance_uid: str
    added_at: datetime
