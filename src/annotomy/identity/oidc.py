"""Sign-in with OpenID Connect: code flow with PKCE, state and nonce; who the person is here, and what their groups give.

Between the redirect to the service and the return, the browser holds a signed transaction in a cookie: the answer counts
only in the browser that asked, for ten minutes, once. A person is known by the service's (issuer, subject) alone. Mail
addresses link nothing: a service may let people name any address. An existing account is linked by its owner, signed in.
"""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.errors import Conflict, Unauthenticated
from annotomy.events import Event, emit
from annotomy.http.peer import Peer, public_origin
from annotomy.identity import sessions, users
from annotomy.identity.errors import NotActive, ProviderFailed
from annotomy.identity.oidc_provider import Provider
from annotomy.identity.schemas import TokenAnswer
from annotomy.identity.second_factor import methods_of
from annotomy.identity.sessions import User
from annotomy.identity.tokens import TokenSigner, consume_transaction
from annotomy.services import Services

PURPOSE = "oidc"
FLOW_LIFETIME = timedelta(minutes=10)
"""Time to sign in at the service, its second factor included."""
MOST_GROUPS = 1000
FEDERATED = "fed"
CALLBACK_PATH = "/api/v1/auth/oidc/callback"

GroupRoles = Callable[[WriteTx, UUID, Mapping[UUID, str], frozenset[UUID]], Awaitable[None]]
"""Sets a user's roles in the projects that groups decide; projects are above identity, so `app.py` hands it in."""


@dataclass(frozen=True, slots=True)
class Begun:
    redirect_url: str
    transaction: str
    """For the cookie of this browser."""


@dataclass(frozen=True, slots=True)
class Finished:
    next_path: str
    answer: TokenAnswer | None
    """None when an account was linked by somebody who is signed in."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What the service's redirect brought back."""

    state: str
    code: str
    issuer: str | None


async def begin(
    services: Services, signer: TokenSigner, provider: Provider, peer: Peer, *, next_path: str, link: UUID | None = None
) -> Begun:
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    redirect_url = await provider.authorization_url(
        redirect_uri=_redirect_uri(services, peer), state=state, nonce=nonce, code_verifier=verifier
    )
    claims = {
        "sub": str(link) if link else "anyone",
        "state": state,
        "nonce": nonce,
        "verifier": verifier,
        "next": safe_path(next_path),
        "link": str(link) if link else None,
    }
    transaction = signer.sign_transaction(PURPOSE, claims, now=services.clock.now(), lifetime=FLOW_LIFETIME)
    return Begun(redirect_url, transaction)


async def finish(
    services: Services,
    signer: TokenSigner,
    provider: Provider,
    peer: Peer,
    *,
    transaction: str,
    returned: Returned,
    group_roles: GroupRoles,
) -> Finished:
    """Raises Unauthenticated for an answer that this browser did not ask for, ProviderFailed for one that cannot be
    trusted, NotActive while the account waits for approval."""
    flow = await signer.verify_transaction(transaction, PURPOSE)
    if not hmac.compare_digest(flow["state"].encode(), returned.state.encode()):
        raise Unauthenticated("This browser did not ask for this sign-in.")
    async with services.db.write(SYSTEM) as tx:
        await consume_transaction(tx, flow)
    metadata = await provider.metadata()
    # RFC 9207: an answer of another service, mixed into this sign-in, names another issuer.
    if returned.issuer is None and metadata.authorization_response_iss_parameter_supported:
        raise ProviderFailed("The sign-in service's answer was refused.")
    if returned.issuer is not None and returned.issuer != provider.issuer:
        raise ProviderFailed("The sign-in service's answer was refused.")
    id_token = await provider.exchange(
        code=returned.code, code_verifier=flow["verifier"], redirect_uri=_redirect_uri(services, peer)
    )
    claims = await provider.verify(id_token, nonce=flow["nonce"])
    if flow["link"] is not None:
        await _link(services, provider.issuer, claims["sub"], UUID(flow["link"]))
        return Finished(flow["next"], None)
    user = await _person(services, provider.issuer, claims, group_roles)
    proofs = claims.get("amr")
    methods = [FEDERATED, *methods_of(proofs if isinstance(proofs, list) else [])]
    return Finished(flow["next"], await sessions.start(services, signer, user, peer, methods=methods))


def safe_path(path: str) -> str:
    """A path on this server, never another site in disguise (`//host`, `/\\host`)."""
    return path if re.match(r"^/(?![/\\])[^\s\\]*$", path) else "/"


async def _person(services: Services, issuer: str, claims: dict[str, Any], group_roles: GroupRoles) -> User:
    """The account of an (issuer, subject), made at the first sign-in; with today's groups. Raises NotActive, Conflict."""
    settings = services.settings.oidc
    async with services.db.write(SYSTEM) as tx:
        user_id = await tx.fetchval(
            "update external_identities set last_used_at = now() where issuer = $1 and subject = $2 returning user_id",
            issuer, claims["sub"],
        )  # fmt: skip
        if user_id is None:
            made = await users.create_external_user(
                tx,
                username=_username(claims),
                email=claims.get("email") if isinstance(claims.get("email"), str) else None,
                display_name=str(claims.get("name", "")),
                active=settings.auto_approve,
            )
            user_id = made.id
            await _remember(tx, issuer, claims["sub"], user_id)
        await _apply_groups(services, tx, user_id, _groups(claims, settings.groups_claim), group_roles)
        row = await tx.fetchrow("select id, username, is_admin, state from users where id = $1", user_id)
    assert row is not None
    if row["state"] != "active":
        raise NotActive("An administrator has to approve the account first.", state=row["state"])
    return sessions.user_of(row)


async def _apply_groups(
    services: Services, tx: WriteTx, user_id: UUID, groups: frozenset[str], group_roles: GroupRoles
) -> None:
    settings = services.settings.oidc
    if settings.admin_group is not None:
        is_admin = settings.admin_group in groups
        if is_admin != await tx.fetchval("select is_admin from users where id = $1", user_id):
            try:
                await users.update_user(tx, user_id, is_admin=is_admin)
            except Conflict:  # the last administrator stays one, whatever the service says: somebody has to
                await emit(tx, Event(type="security.last_admin_kept", object_kind="user", object_id=str(user_id)))
    if settings.roles:
        wanted = {UUID(project): role for group, project, role in settings.roles if group in groups}
        decided = frozenset(UUID(project) for _, project, _ in settings.roles)
        await group_roles(tx, user_id, wanted, decided)


async def _link(services: Services, issuer: str, subject: str, user_id: UUID) -> None:
    async with services.db.write(SYSTEM) as tx:
        row = await tx.fetchrow("select username from users where id = $1 and state = 'active'", user_id)
        if row is None:
            raise NotActive("The account is not active.")
        tx.actor = Actor(user_id=user_id, name=row["username"])
        await _remember(tx, issuer, subject, user_id)
        owner = await tx.fetchval(
            "select user_id from external_identities where issuer = $1 and subject = $2", issuer, subject
        )
    if owner != user_id:
        raise Conflict("This person of the sign-in service is linked to another account.")


async def _remember(tx: WriteTx, issuer: str, subject: str, user_id: UUID) -> None:
    await tx.execute(
        "insert into external_identities (issuer, subject, user_id, last_used_at) values ($1, $2, $3, now())"
        " on conflict do nothing",
        issuer, subject, user_id,
    )  # fmt: skip
    await emit(tx, Event(type="user.linked", object_kind="user", object_id=str(user_id)))


def _groups(claims: dict[str, Any], claim: str) -> frozenset[str]:
    found = claims.get(claim)
    return frozenset(str(group) for group in found[:MOST_GROUPS]) if isinstance(found, list) else frozenset()


def _username(claims: dict[str, Any]) -> str:
    wanted = next(
        (claims[name] for name in ("preferred_username", "email", "sub") if isinstance(claims.get(name), str)), ""
    )
    return re.sub(r"[^\w.@+-]", "_", wanted)[:64] or "unnamed"


def _redirect_uri(services: Services, peer: Peer) -> str:
    return public_origin(services.settings.http, peer.host) + CALLBACK_PATH
