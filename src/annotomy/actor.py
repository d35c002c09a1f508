"""Who asks. An actor comes from a credential, never from a body or a header that a client may choose."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """The asking principal: a person, one of their API keys or share links, a DIMSE peer, or the system itself."""

    user_id: UUID
    name: str
    kind: Literal["user", "api_key", "share_link", "aet", "system"] = "user"
    is_admin: bool = False
    project_ids: frozenset[UUID] | None = None
    """The only projects that this credential reaches, or None when it reaches all of its user's."""
    session_id: UUID | None = None
    key_id: UUID | None = None
    """The API key that was shown."""
    scopes: frozenset[str] | None = None
    """What an API key is narrowed to: names of permissions and the groups `read`, `write`, `admin`; None: not narrowed."""
    share_link_id: UUID | None = None
    """The link that somebody came by: they are its maker, narrowed to what it names (projects/share_links.py)."""

    @property
    def sole_project_id(self) -> UUID | None:
        """Where something goes that names no project: the one that the credential is bound to, if it is bound to just one."""
        return next(iter(self.project_ids)) if self.project_ids is not None and len(self.project_ids) == 1 else None

    def reaches(self, project_id: UUID) -> bool:
        return self.project_ids is None or project_id in self.project_ids


SYSTEM = Actor(user_id=UUID(int=0), name="system", kind="system")
"""Jobs and store operations after the asker's rights were decided; row-level security lets the nil UUID see all rows."""
