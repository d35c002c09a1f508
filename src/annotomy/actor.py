"""Who asks. An actor comes from a credential, never from a body or a header that a client may choose."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """The asking principal: a person, one of their API keys, a DIMSE peer, or the system itself."""

    user_id: UUID
    name: str
    kind: Literal["user", "api_key", "aet", "system"] = "user"
    is_admin: bool = False
    project_id: UUID | None = None
    """The only project that this credential reaches, or None when it reaches all of its user's."""
    session_id: UUID | None = None
    key_id: UUID | None = None
    """The API key that was shown."""
    scopes: frozenset[str] | None = None
    """What an API key is narrowed to: names of permissions and the groups `read`, `write`, `admin`; None: not narrowed."""


SYSTEM = Actor(user_id=UUID(int=0), name="system", kind="system")
"""Jobs and store operations after the asker's rights were decided; row-level security lets the nil UUID see all rows."""
