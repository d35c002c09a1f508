"""What a new installation needs before anyone can sign in: the administrator and the service users."""

import secrets

import structlog

from annotomy.actor import SYSTEM
from annotomy.db.engine import Database
from annotomy.identity.errors import WeakPassword
from annotomy.identity.passwords import hash_as_given, require_strong
from annotomy.identity.users import create_user
from annotomy.settings import AdminSettings

log = structlog.get_logger(__name__)

DIMSE_USERNAME = "dimse"
"""The service principal of DICOM peers that no other is bound to."""
FIRST_START_LOCK = 0x666972737421


async def ensure_first_users(db: Database, admin: AdminSettings) -> str | None:
    """Makes the administrator when there is no administrator yet. Returns the generated password, to be shown once."""
    generated = None if admin.password else secrets.token_urlsafe(12)
    async with db.read(SYSTEM) as tx:
        if await tx.fetchval("select 1 from users where is_admin"):
            return None
    password_hash = await hash_as_given(_checked(admin.password) or generated or "")
    async with db.write(SYSTEM) as tx:
        await tx.execute("select pg_advisory_xact_lock($1)", FIRST_START_LOCK)
        if await tx.fetchval("select 1 from users where is_admin"):
            return None
        await create_user(
            tx, username=admin.username, password_hash=password_hash, display_name="Administrator", is_admin=True
        )
        await create_user(tx, username=DIMSE_USERNAME, password_hash=None, display_name="DICOM peers", is_service=True)
    return generated


def _checked(password: str | None) -> str | None:
    """The operator's own choice starts the server even when it is weak, but not in silence."""
    if password is not None:
        try:
            require_strong(password)
        except WeakPassword as problem:
            log.warning("first_start.weak_password", variable="ANNOTOMY_ADMIN_PASSWORD", detail=problem.detail)
    return password
