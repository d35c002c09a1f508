"""/api/v1/projects/{id}/share-links: links that are given out; POST /api/v1/share: opening one."""

from datetime import timedelta
from uuid import UUID

from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from annotomy.actor import Actor
from annotomy.errors import BadRequest, Forbidden
from annotomy.http.cookies import NO_STORE, viewer_cookie
from annotomy.http.pages import Page
from annotomy.http.peer import Peer, require_own_page
from annotomy.identity.credentials import require_fresh
from annotomy.identity.passwords import hash_as_given
from annotomy.identity.tokens import TokenSigner
from annotomy.projects import share_links
from annotomy.projects.schemas import IssuedShareLink, NewShareLink, OpenShareLink, SharedAccess, ShareLink
from annotomy.services import Services


@get("/projects/{project_id:uuid}/share-links", operation_id="ListShareLinks", opt={"permission": "member"})
async def list_share_links(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[ShareLink]:
    """One's own links into the project; everybody's for who manages it. Ended ones as well, the newest first."""
    async with services.db.read(actor) as tx:
        found = await share_links.list_share_links(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@post("/projects/{project_id:uuid}/share-links", operation_id="CreateShareLink", opt={"permission": "study.share"})
async def create_share_link(
    project_id: FromPath[UUID],
    data: JSONBody[NewShareLink],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[IssuedShareLink]:
    """Give out a link to studies or series of the project; its token is shown this once."""
    if not services.settings.share_link_days:
        raise Forbidden("Share links are turned off here.")
    await require_fresh(services, actor)
    password_hash = None
    if data.password is not None:
        if not share_links.MIN_PASSWORD <= len(data.password) <= share_links.MAX_PASSWORD:
            raise BadRequest(
                f"A link's password has {share_links.MIN_PASSWORD} to {share_links.MAX_PASSWORD} characters."
            )
        password_hash = await hash_as_given(data.password)
    async with services.db.write(actor) as tx:
        issued = await share_links.create_share_link(
            tx,
            project_id,
            data,
            password_hash=password_hash,
            now=services.clock.now(),
            longest=timedelta(days=services.settings.share_link_days),
        )
    return Response(issued, status_code=201, headers=NO_STORE)


@delete(
    "/projects/{project_id:uuid}/share-links/{link_id:uuid}",
    operation_id="RevokeShareLink",
    opt={"permission": "member"},
)
async def revoke_share_link(
    project_id: FromPath[UUID],
    link_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """End a link of one's own, or any link into a project that one manages, at once and everywhere."""
    async with services.db.write(actor) as tx:
        await share_links.revoke_share_link(tx, project_id, link_id)


@post("/share", status_code=200, operation_id="OpenShareLink", opt={"permission": "anyone"}, security=[{}])
async def open_share_link(
    data: JSONBody[OpenShareLink],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
) -> Response[SharedAccess]:
    """Exchange a link's token for an access token that reads what the link names over DICOMweb. Counts as one use."""
    if data.cookie:
        require_own_page(peer, services.settings.http)
    access = await share_links.open_share_link(services, signer, token=data.token, password=data.password, peer=peer)
    cookies = [viewer_cookie(access.access_token, peer, access.expires_in)] if data.cookie else []
    return Response(access, headers=NO_STORE, cookies=cookies)


router = Router(
    path="",
    tags=["projects"],
    route_handlers=[list_share_links, create_share_link, revoke_share_link, open_share_link],
)
