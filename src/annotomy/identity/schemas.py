"""What identity's routes take and answer."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Login(msgspec.Struct, frozen=True):
    username: str
    password: str
    cookie: bool = False
    """Pages of ours: the refresh token goes into a cookie that scripts cannot read, instead of the answer."""


class SecondFactor(msgspec.Struct, frozen=True):
    """`transaction` of the problem `second-factor-required`, and one of the others."""

    transaction: str
    totp: str | None = None
    recovery_code: str | None = None
    passkey: dict[str, Any] | None = None
    cookie: bool = False


class PasskeySignIn(msgspec.Struct, frozen=True):
    transaction: str
    passkey: dict[str, Any]
    cookie: bool = False


class PasskeyChallenge(msgspec.Struct, frozen=True):
    transaction: str
    options: dict[str, Any]
    """For `navigator.credentials`, binary values in base64url."""


class StepUp(msgspec.Struct, frozen=True):
    """One of them; a passkey answers a challenge of `POST /auth/step-up/passkey`."""

    password: str | None = None
    totp: str | None = None
    recovery_code: str | None = None
    transaction: str | None = None
    passkey: dict[str, Any] | None = None


class RefreshRequest(msgspec.Struct, frozen=True):
    refresh_token: str | None = None
    """Absent: the cookie of a page of ours is used."""


class TokenAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    access_token: str
    token_type: str
    expires_in: int
    """Seconds."""
    refresh_token: str | None = None
    """Absent when it went into the cookie."""


class SignInWays(msgspec.Struct, frozen=True):
    """What the sign-in page offers."""

    sign_up: bool
    passkey: bool
    oidc: str | None
    """The name of the sign-in service, if there is one."""


class SignUp(msgspec.Struct, frozen=True):
    username: str
    email: str
    password: str
    display_name: str = ""


class SignUpAnswer(msgspec.Struct, frozen=True):
    state: str
    """Always `pending`: whether the name was free, only a mail tells."""


class ResetRequest(msgspec.Struct, frozen=True):
    username: str
    """Or the mail address."""


class Reset(msgspec.Struct, frozen=True):
    token: str
    password: str


class PasswordChange(msgspec.Struct, frozen=True):
    current_password: str
    new_password: str


class ProfileChange(msgspec.Struct, frozen=True):
    display_name: str | None = None
    email: str | None = None


class UserChange(msgspec.Struct, frozen=True):
    display_name: str | None = None
    email: str | None = None
    is_admin: bool | None = None


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
    global_roles: list[str]
    """Roles of the installation, outside of any project."""


class Profile(msgspec.Struct, frozen=True):
    user: User
    has_password: bool
    has_totp: bool
    recovery_codes: int
    """How many are left."""
    passkeys: list["Passkey"]
    linked: bool
    """To the sign-in service."""


class Session(msgspec.Struct, frozen=True):
    id: UUID
    client: str
    address: str
    methods: list[str]
    created_at: datetime
    last_used_at: datetime
    """The last refresh: exact to the ten minutes that an access token lives."""
    authenticated_at: datetime
    expires_at: datetime
    current: bool


class EndedSessions(msgspec.Struct, frozen=True):
    ended: int


class NewTotp(msgspec.Struct, frozen=True):
    secret: str
    """Base32, for typing it in."""
    uri: str
    qr_svg: str


class Code(msgspec.Struct, frozen=True):
    code: str


class RecoveryCodes(msgspec.Struct, frozen=True):
    recovery_codes: list[str]
    """Shown once; each serves once."""


class NewPasskey(msgspec.Struct, frozen=True):
    transaction: str
    passkey: dict[str, Any]
    name: str = ""


class Passkey(msgspec.Struct, frozen=True):
    id: UUID
    name: str
    created_at: datetime
    last_used_at: datetime | None


class RelyingParty(msgspec.Struct, frozen=True):
    """Who we are to an authenticator: the host name and the whole origin."""

    id: str
    origin: str


class NewApiKey(msgspec.Struct, frozen=True):
    name: str
    project_id: UUID | None = None
    """The same as `project_ids` with this one alone."""
    project_ids: list[UUID] | None = None
    """The only projects that the key reaches; absent: all of one's own."""
    expires_at: datetime | None = None
    scopes: list[str] | None = None
    """Names of permissions, or `read`, `write`, `admin`; absent: all that one may do."""
    addresses: list[str] = msgspec.field(default_factory=list[str])
    """Networks that the key may be used from; none: anywhere."""


class ApiKey(msgspec.Struct, frozen=True):
    id: UUID
    handle: str
    """The middle part of the key."""
    name: str
    scopes: list[str] | None
    project_ids: list[UUID] | None
    """Null: every project of its owner."""
    addresses: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class IssuedApiKey(msgspec.Struct, frozen=True):
    id: UUID
    key: str
    """Shown once; only its hash is kept."""
