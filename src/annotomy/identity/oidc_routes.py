"""/api/v1/auth/oidc: to the sign-in service and back."""

from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter
from litestar.response import Redirect

from annotomy.actor import Actor
from annotomy.errors import Problem, Unauthenticated
from annotomy.http.peer import Peer
from annotomy.identity import oidc, users
from annotomy.identity.auth_routes import NO_STORE, session_cookies
from annotomy.identity.credentials import require_fresh
from annotomy.identity.oidc_provider import Provider
from annotomy.identity.tokens import TokenSigner
from annotomy.services import Services

FLOW_COOKIE, FLOW_COOKIE_PLAIN = "__Host-annotomy_oidc", "annotomy_oidc"


class LinkAnswer(msgspec.Struct, frozen=True):
    redirect_url: str
    """Where the page goes now."""


@get("/auth/oidc/start", operation_id="BeginOidcSignIn", opt={"permission": "anyone"}, security=[{}], status_code=302)
async def begin(
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
    provider: NamedDependency[Provider],
    next_path: FromQuery[str] = "/",
) -> Redirect:
    """Go to the sign-in service."""
    try:
        begun = await oidc.begin(services, signer, provider, peer, next_path=next_path)
    except Problem as problem:
        return _back_to_sign_in(problem)
    return Redirect(begun.redirect_url, headers=NO_STORE, cookies=[_flow_cookie(begun.transaction, peer)])


@post("/auth/oidc/link", status_code=200, operation_id="LinkOidc", opt={"permission": "own"})
async def link(
    peer: NamedDependency[Peer],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
    provider: NamedDependency[Provider],
) -> Response[LinkAnswer]:
    """Link one's own account to oneself at the sign-in service; the page goes on to the address answered."""
    users.require_person(actor)
    await require_fresh(services, actor, always=True)
    begun = await oidc.begin(services, signer, provider, peer, next_path="/profile", link=actor.user_id)
    return Response(LinkAnswer(begun.redirect_url), headers=NO_STORE, cookies=[_flow_cookie(begun.transaction, peer)])


@get(
    "/auth/oidc/callback", operation_id="FinishOidcSignIn", opt={"permission": "anyone"}, security=[{}], status_code=302
)
async def finish(
    request: Request[Any, Any, Any],
    peer: NamedDependency[Peer],
    services: NamedDependency[Services],
    signer: NamedDependency[TokenSigner],
    provider: NamedDependency[Provider],
    group_roles: NamedDependency[oidc.GroupRoles],
    code: FromQuery[str] = "",
    returned_state: Annotated[str, QueryParameter(name="state")] = "",
    iss: FromQuery[str | None] = None,
) -> Redirect:
    """Where the sign-in service sends the browser back to. Failures end on the sign-in page with their slug."""
    transaction = request.cookies.get(FLOW_COOKIE if peer.is_secure else FLOW_COOKIE_PLAIN)
    try:
        if not transaction or not code:
            raise Unauthenticated("The sign-in was not begun in this browser, or the service refused it.")
        done = await oidc.finish(
            services,
            signer,
            provider,
            peer,
            transaction=transaction,
            returned=oidc.Returned(state=returned_state, code=code, issuer=iss),
            group_roles=group_roles,
        )
    except Problem as problem:
        return _back_to_sign_in(problem, _flow_cookie("", peer))
    cookies = [_flow_cookie("", peer)]
    if done.answer is not None:
        cookies += session_cookies(done.answer, peer, services)
    return Redirect(done.next_path, headers=NO_STORE, cookies=cookies)


def _back_to_sign_in(problem: Problem, *cookies: Cookie) -> Redirect:
    return Redirect("/sign-in?" + urlencode({"problem": problem.slug}), headers=NO_STORE, cookies=list(cookies))


def _flow_cookie(value: str, peer: Peer) -> Cookie:
    """Lax, since the service's redirect comes from another site."""
    return Cookie(
        key=FLOW_COOKIE if peer.is_secure else FLOW_COOKIE_PLAIN,
        value=value,
        path="/",
        httponly=True,
        samesite="lax",
        secure=peer.is_secure,
        max_age=int(oidc.FLOW_LIFETIME.total_seconds()) if value else 0,
    )


handlers = [begin, link, finish]
