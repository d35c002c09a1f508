"""Identity's routes: who one is, one's API keys, and the list of the others (auth_, user_, security_routes).

These two stand here because they ask upward, at the wall of projects.
"""

from uuid import UUID

from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from annotomy.actor import Actor
from annotomy.errors import BadRequest
from annotomy.http.pages import Page
from annotomy.identity import api_keys, auth_routes, oidc_routes, security_routes, user_routes
from annotomy.identity.credentials import require_fresh
from annotomy.identity.schemas import ApiKey, IssuedApiKey, Me, Membership, NewApiKey
from annotomy.projects.access import SCOPE_NAMES, require_member
from annotomy.services import Services


@get("/users/me", operation_id="GetMe", opt={"permission": "own"})
async def me(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Me:
    """Who one is, with one's projects, roles and permissions."""
    async with services.db.read(actor) as tx:
        row = await tx.fetchrow("select id, username, display_name, is_admin from users where id = $1", actor.user_id)
        rows = await tx.fetch(
            "select p.id, p.name, m.role, m.permissions from project_members m join projects p on p.id = m.project_id"
            " where m.user_id = $1 and (m.expires_at is null or m.expires_at > now())"
            " and ($2::uuid[] is null or p.id = any ($2)) order by p.name",
            actor.user_id, actor.project_ids,
        )  # fmt: skip
        global_roles = await tx.fetch("select role from global_roles where user_id = $1 order by role", actor.user_id)
    assert row is not None
    return Me(
        **dict(row),
        global_roles=[r["role"] for r in global_roles],
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


@get("/api-keys", operation_id="ListApiKeys", opt={"permission": "own"})
async def list_api_keys(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[ApiKey]:
    """One's own API keys."""
    async with services.db.read(actor) as tx:
        found = await api_keys.list_api_keys(tx)
    return Page(items=found, next=None, total=len(found))


@post("/api-keys", operation_id="IssueApiKey", opt={"permission": "own"})
async def issue_api_key(
    data: JSONBody[NewApiKey], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> IssuedApiKey:
    """Issue an API key for oneself; it is shown this once."""
    await require_fresh(services, actor)
    scopes = None if data.scopes is None else frozenset(data.scopes)
    unknown = sorted((scopes or frozenset()) - api_keys.COARSE_SCOPES - SCOPE_NAMES)
    if unknown:
        raise BadRequest(f"There are no such scopes: {', '.join(unknown)}.")
    if data.project_id is not None and data.project_ids is not None:
        raise BadRequest("Name the projects in project_ids, or one in project_id.")
    named = data.project_ids if data.project_id is None else [data.project_id]
    project_ids = actor.project_ids if named is None else frozenset(named)
    api_keys.require_within(actor, project_ids=project_ids, scopes=scopes)
    async with services.db.write(actor) as tx:
        for project_id in sorted(project_ids or ()):
            await require_member(tx, actor, project_id)
        return await api_keys.issue_api_key(
            tx,
            user_id=actor.user_id,
            name=data.name,
            project_ids=project_ids,
            scopes=scopes,
            expires_at=data.expires_at,
            addresses=data.addresses,
        )


@delete("/api-keys/{key_id:uuid}", operation_id="RevokeApiKey", opt={"permission": "own"})
async def revoke_api_key(
    key_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Revoke one of one's own API keys."""
    async with services.db.write(actor) as tx:
        await api_keys.revoke_api_key(tx, key_id)


router = Router(
    path="",
    tags=["identity"],
    route_handlers=[
        me, list_api_keys, issue_api_key, revoke_api_key,
        *auth_routes.handlers, *user_routes.handlers, *security_routes.handlers, *oidc_routes.handlers,
    ],
)  # fmt: skip
