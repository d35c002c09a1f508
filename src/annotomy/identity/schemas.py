"""What identity's routes take and answer."""

from datetime import datetime
from uuid import UUID

import msgspec


class Login(msgspec.Struct, frozen=True):
    username: str
    password: str


class RefreshRequest(msgspec.Struct, frozen=True):
    refresh_token: str


class TokenAnswer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int
    """Seconds."""
    refresh_token: str


class NewUser(msgspec.Struct, frozen=True):
    username: str
    email: str | None = None
    password: str | None = None
    """Without one the user is pending until a password is set and an administrator approves."""
    display_name: str = ""
    is_admin: bool = False


class User(msgspec.Struct, frozen=True):
    id: UUID
    username: str
    email: str | None
    display_name: str
    state: str
    is_admin: bool
    created_at: datetime


class Membership(msgspec.Struct, frozen=True):
    project_id: UUID
    project_name: str
    role: str
    permissions: list[str]


class Me(msgspec.Struct, frozen=True):
    id: UUID
    username: str
    display_name: str
    is_admin: bool
    projects: list[Membership]


class NewApiKey(msgspec.Struct, frozen=True):
    name: str
    project_id: UUID | None = None
    expires_at: datetime | None = None


class ApiKey(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    project_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class IssuedApiKey(msgspec.Struct, frozen=True):
    id: UUID
    key: str
    """Shown once; only its hash is kept."""
