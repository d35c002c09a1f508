"""/api/v1/users: administration of accounts, and one's own profile and password."""

from typing import Annotated
from uuid import UUID

from litestar import delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, PathParameter

from annotomy.actor import Actor
from annotomy.http.pages import Page
from annotomy.http.peer import Peer
from annotomy.identity import credentials, passkeys, sessions, users
from annotomy.identity.credentials import require_fresh
from annotomy.identity.passwords import hash_password
from annotomy.identity.schemas import EndedSessions, NewUser, PasswordChange, Profile, ProfileChange, User, UserChange
from annotomy.services import Services


@get("/users", operation_id="ListUsers", opt={"permission": "user.manage"})
async def list_users(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[User]:
    """All users; for administrators."""
    users.require_admin(actor)
    async with services.db.read(actor) as tx:
        found = await users.list_users(tx)
    return Page(items=found, next=None, total=len(found))


@post("/users", operation_id="CreateUser", opt={"permission": "user.manage"})
async def create_user(
    data: JSONBody[NewUser], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> User:
    """Create a user; for administrators."""
    users.require_admin(actor)
    await require_fresh(services, actor)
    password_hash = None
    if data.password is not None:
        password_hash = await hash_password(data.password, username=data.username)
    if data.email is not None:
        users.require_email(data.email)
    async with services.db.write(actor) as tx:
        return await users.create_user(
            tx,
            username=data.username,
            password_hash=password_hash,
            email=data.email,
            display_name=data.display_name,
            is_admin=data.is_admin,
        )


@post(
    "/users/{user_id:uuid}/{action:str}",
    status_code=200,
    operation_id="ChangeUserState",
    opt={"permission": "user.manage"},
)
async def change_user_state(
    user_id: FromPath[UUID],
    action: Annotated[
        str, PathParameter(pattern="^(approve|suspend|activate)$", description="approve, suspend or activate")
    ],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> User:
    """Approve, suspend or activate a user; for administrators."""
    users.require_admin(actor)
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        return await users.change_state(tx, user_id, action)


@patch("/users/{user_id:uuid}", operation_id="UpdateUser", opt={"permission": "user.manage"})
async def update_user(
    user_id: FromPath[UUID],
    data: JSONBody[UserChange],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> User:
    """Change a user's name, mail address or administrator's right; for administrators."""
    users.require_admin(actor)
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        return await users.update_user(
            tx, user_id, display_name=data.display_name, email=data.email, is_admin=data.is_admin
        )


@delete("/users/{user_id:uuid}", operation_id="DeleteUser", opt={"permission": "user.manage"})
async def delete_user(
    user_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Empty a user's account for good; for administrators. What the user made stays."""
    users.require_admin(actor)
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        await users.delete_user(tx, user_id)


@delete(
    "/users/{user_id:uuid}/sessions", status_code=200, operation_id="EndUserSessions", opt={"permission": "user.manage"}
)
async def end_user_sessions(
    user_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> EndedSessions:
    """Sign a user out everywhere; for administrators."""
    users.require_admin(actor)
    await require_fresh(services, actor)
    async with services.db.write(actor) as tx:
        return EndedSessions(await sessions.end_sessions(tx, user_id, why="ended by an administrator"))


@get("/users/me/profile", operation_id="GetProfile", opt={"permission": "own"})
async def get_profile(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Profile:
    """One's own account with what protects it."""
    async with services.db.read(actor) as tx:
        factors = await credentials.factors_of(tx, actor.user_id)
        return Profile(
            user=await users.get_user(tx, actor.user_id),
            has_password=await tx.fetchval("select password_hash is not null from users where id = $1", actor.user_id),
            has_totp=factors.totp,
            recovery_codes=factors.recovery_codes,
            passkeys=await passkeys.list_passkeys(tx),
            linked=await tx.fetchval(
                "select exists (select from external_identities where user_id = $1)", actor.user_id
            ),
        )


@patch("/users/me", operation_id="UpdateProfile", opt={"permission": "own"})
async def update_profile(
    data: JSONBody[ProfileChange], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> User:
    """Change one's own name to display, or mail address. Links to reset a password go to that address: changing it needs a
    fresh proof of identity."""
    users.require_person(actor)
    if data.email is not None:
        await require_fresh(services, actor, always=True)
    async with services.db.write(actor) as tx:
        return await users.update_user(tx, actor.user_id, display_name=data.display_name, email=data.email)


@post("/users/me/password", status_code=204, operation_id="ChangePassword", opt={"permission": "own"})
async def change_password(
    data: JSONBody[PasswordChange],
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Change one's own password; all other sessions end."""
    users.require_person(actor)
    await credentials.change_password(services, actor, data.current_password, data.new_password, peer)


handlers = [
    list_users, create_user, change_user_state, update_user, delete_user, end_user_sessions,
    get_profile, update_profile, change_password,
]  # fmt: skip
