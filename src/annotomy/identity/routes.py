"""/api/v1/auth, users, api-keys."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, delete, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, PathParameter

from annotomy.actor import Actor
from annotomy.http.pages import Page
from annotomy.identity import api_keys, sessions, users
from annotomy.identity.passwords import hash_password
from annotomy.identity.schemas import (
    ApiKey,
    IssuedApiKey,
    Login,
    Me,
    Membership,
    NewApiKey,
    NewUser,
    RefreshRequest,
    TokenAnswer,
    User,
)
from annotomy.identity.tokens import TokenSigner
from annotomy.projects.access import require_member
from annotomy.services import Services

VIEWER_COOKIE = "annotomy_access"
"""The access token once more, HttpOnly and for /dicom-web only: the foreign viewer cannot send headers of ours."""


@post("/auth/token", status_code=200, operation_id="SignIn", opt={"permission": "anyone"}, tags=["identity"])
async def sign_in(
    data: JSONBody[Login],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Sign in with username and password."""
    answer = await sessions.sign_in(
        services, signer, data.username, data.password, request.headers.get("user-agent", "")
    )
    return _with_cookie(request, answer)


@post("/auth/refresh", status_code=200, operation_id="RefreshToken", opt={"permission": "anyone"}, tags=["identity"])
async def refresh(
    data: JSONBody[RefreshRequest],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[TokenAnswer]:
    """Exchange a refresh token, which is used once, for new tokens."""
    return _with_cookie(request, await sessions.refresh(services, signer, data.refresh_token))


@post("/auth/logout", status_code=204, operation_id="SignOut", opt={"permission": "anyone"}, tags=["identity"])
async def sign_out(data: JSONBody[RefreshRequest], services: NamedDependency[Services]) -> Response[None]:
    """End the session of this refresh token."""
    await sessions.sign_out(services, data.refresh_token)
    cookie = Cookie(key=VIEWER_COOKIE, value="", path="/dicom-web", httponly=True, samesite="strict", max_age=0)
    return Response(None, status_code=204, cookies=[cookie])


@get("/users/me", operation_id="GetMe", opt={"permission": "own"}, tags=["identity"])
async def me(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Me:
    """Who one is, with one's projects, roles and permissions."""
    async with services.db.read(actor) as tx:
        row = await tx.fetchrow("select id, username, display_name, is_admin from users where id = $1", actor.user_id)
        rows = await tx.fetch(
            "select p.id, p.name, m.role, m.permissions from project_members m join projects p on p.id = m.project_id"
            " where m.user_id = $1 and (m.expires_at is null or m.expires_at > now())"
            " and ($2::uuid is null or p.id = $2) order by p.name",
            actor.user_id, actor.project_id,
        )  # fmt: skip
    assert row is not None
    return Me(
        **dict(row),
        projects=[
            Membership(
                project_id=r["id"],
                project_name=r["name"],
                role=r["role"],
                permissions=r["permissions"],
            )
            for r in rows
        ],
    )


@get("/users", operation_id="ListUsers", opt={"permission": "user.manage"}, tags=["identity"])
async def list_users(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[User]:
    """All users; for administrators."""
    users.require_admin(actor)
    async with services.db.read(actor) as tx:
        found = await users.list_users(tx)
    return Page(items=found, next=None, total=len(found))


@post("/users", operation_id="CreateUser", opt={"permission": "user.manage"}, tags=["identity"])
async def create_user(
    data: JSONBody[NewUser], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> User:
    """Create a user; for administrators."""
    users.require_admin(actor)
    password_hash = await hash_password(data.password) if data.password is not None else None
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
    tags=["identity"],
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
    async with services.db.write(actor) as tx:
        return await users.change_state(tx, user_id, action)


@get("/api-keys", operation_id="ListApiKeys", opt={"permission": "own"}, tags=["identity"])
async def list_api_keys(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[ApiKey]:
    """One's own API keys."""
    async with services.db.read(actor) as tx:
        found = await api_keys.list_api_keys(tx)
    return Page(items=found, next=None, total=len(found))


@post("/api-keys", operation_id="IssueApiKey", opt={"permission": "own"}, tags=["identity"])
async def issue_api_key(
    data: JSONBody[NewApiKey], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> IssuedApiKey:
    """Issue an API key for oneself; it is shown this once."""
    async with services.db.write(actor) as tx:
        project_id = data.project_id or actor.project_id
        if project_id is not None:
            await require_member(tx, actor, project_id)
        return await api_keys.issue_api_key(
            tx, user_id=actor.user_id, name=data.name, project_id=project_id, scopes=[], expires_at=data.expires_at
        )


@delete("/api-keys/{key_id:uuid}", operation_id="RevokeApiKey", opt={"permission": "own"}, tags=["identity"])
async def revoke_api_key(
    key_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Revoke one of one's own API keys."""
    async with services.db.write(actor) as tx:
        await api_keys.revoke_api_key(tx, key_id)


def _with_cookie(request: Request[Any, Any, Any], answer: TokenAnswer) -> Response[TokenAnswer]:
    cookie = Cookie(
        key=VIEWER_COOKIE,
        value=answer.access_token,
        path="/dicom-web",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        max_age=answer.expires_in,
    )
    return Response(answer, cookies=[cookie], headers={"Cache-Control": "no-store"})


router = Router(
    path="",
    route_handlers=[
        sign_in, refresh, sign_out, me, list_users, create_user, change_user_state, list_api_keys, issue_api_key, revoke_api_key,
    ],
)  # fmt: skip
