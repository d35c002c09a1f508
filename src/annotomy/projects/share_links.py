"""Share links: who holds the link sees named studies or series of one project, without an account, for a time.

A link acts as its maker, narrowed. The view `visibility` joins what the link names with what the maker sees at that moment
through the project, rules included, and shows nothing once the link ended or the maker may no longer share; so nothing has
to be settled anew when rights change. The token is 256 random bits, shown once and stored hashed. It is exchanged for an
access token that reaches the routes which declare `opt["shared"]` and no other; both the token and the link are checked
at each request (identity/authenticate.py).
"""

import contextlib
from datetime import datetime, timedelta
from typing import Any, Literal, NoReturn
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.audit import Entry, record
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthenticated
from annotomy.events import Event, emit
from annotomy.http.peer import Peer
from annotomy.identity import throttle
from annotomy.identity.passwords import password_matches
from annotomy.identity.revocation import announce
from annotomy.identity.throttle import network_of
from annotomy.identity.tokens import TokenSigner, new_secret, secret_hash
from annotomy.projects.access import VALID, Permission, require, require_holdings, require_member
from annotomy.projects.errors import SharePasswordNeeded, ShareRefused
from annotomy.projects.schemas import (
    IssuedShareLink,
    NewShareLink,
    SharedAccess,
    SharedStudy,
    ShareLink,
)
from annotomy.services import Services

TOKEN_PREFIX = "annotomy-share-"  # noqa: S105 - what secret scanners recognise; the secret follows
LIFETIME = timedelta(hours=1)
"""Of the access token of one opening: an ordinary reading. The link itself is asked at each request, so that a revocation
does not wait for it."""
MAX_NAME = 200
MAX_STUDIES = 100
"""Of one link: more is an export, or a member."""
MAX_SERIES = 1000
"""Of one link, over all studies."""
MAX_LINKS = 1000
"""Of one project, not revoked; the list shows all of them."""
MIN_PASSWORD, MAX_PASSWORD = 8, 1024
"""Characters. Shorter than an account's: the link itself is 256 random bits, and guesses are slowed down for each link."""
NEEDS: dict[str, Permission] = {"view": Permission.STUDY_READ, "download": Permission.STUDY_EXPORT}
"""What the maker holds for each action, and what the link's actor is narrowed to."""

_STATE = (
    "case when l.revoked_at is not null then 'revoked' when l.expires_at <= now() then 'expired'"
    " when l.uses >= l.max_uses then 'used_up' else 'active' end"
)
_STANDS = (
    "share_links l join users u on u.id = l.created_by and u.state = 'active'"
    " join project_members m on m.project_id = l.project_id and m.user_id = l.created_by"
    f" and 'study.read' = any (m.permissions) and 'study.share' = any (m.permissions) and {VALID}"
    " where l.revoked_at is null and l.expires_at > now()"
)
"""Links that may be used, as far as the link and its maker's role say; `visibility` says the same and what is seen."""


# -- by who manages them ----------------------------------------------------------------------------------------------


async def create_share_link(
    tx: WriteTx,
    project_id: UUID,
    asked: NewShareLink,
    *,
    password_hash: str | None,
    now: datetime,
    longest: timedelta,
) -> IssuedShareLink:
    """Raises Forbidden for an action that the maker may not do, NotFound for what the maker does not see in the project."""
    await require(tx, tx.actor, Permission.STUDY_SHARE, project_id)
    actions = sorted({"view", *asked.actions}, reverse=True)
    for action in actions:
        await require(tx, tx.actor, NEEDS[action], project_id)
    if not asked.name.strip() or len(asked.name) > MAX_NAME:
        raise BadRequest(f"A link's name has 1 to {MAX_NAME} characters.")
    if asked.expires_at.tzinfo is None or not now < asked.expires_at <= now + longest:
        raise BadRequest(f"expires_at is a time within {longest.days} days, with its offset from UTC.")
    if asked.max_uses is not None and not 1 <= asked.max_uses <= 1_000_000:
        raise BadRequest("max_uses is 1 to 1000000, or absent.")
    items = await _items(tx, project_id, asked.studies)
    await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 1))", str(project_id))
    if await tx.fetchval(
        "select count(*) >= $2 from share_links where project_id = $1 and revoked_at is null and expires_at > now()",
        project_id, MAX_LINKS,
    ):  # fmt: skip
        raise Conflict(f"The project has {MAX_LINKS} links already. Revoke what is not used.")
    link_id, token = new_id(), TOKEN_PREFIX + new_secret()
    await tx.execute(
        "insert into share_links (id, hash, project_id, created_by, name, actions, password_hash, max_uses, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        link_id, secret_hash(token), project_id, tx.actor.user_id, asked.name.strip(), actions, password_hash,
        asked.max_uses, asked.expires_at,
    )  # fmt: skip
    await tx.executemany(
        "insert into share_link_items (link_id, project_id, study_id, series_id) values ($1, $2, $3, $4)",
        [(link_id, project_id, *item) for item in items],
    )
    data: dict[str, Any] = {
        "actions": actions,
        "expires_at": asked.expires_at.isoformat(),
        "max_uses": asked.max_uses,
        "password": password_hash is not None,
    }
    await _emit(tx, "share_link.created", link_id, project_id, data)
    for one in asked.studies:  # in the audit alone: not everybody who sees the event sees the study
        entry = Entry(
            action="study.shared",
            object_kind="study",
            object_id=one.study_instance_uid,
            project_id=project_id,
            study_instance_uid=one.study_instance_uid,
            detail={"share_link": str(link_id), "series": one.series_instance_uids},
        )
        await record(tx, entry)
    return IssuedShareLink(id=link_id, token=token, path=f"/share#{token}", expires_at=asked.expires_at)


async def list_share_links(tx: ReadTx, project_id: UUID) -> list[ShareLink]:
    """One's own, and everybody's where one manages the project; newest first. Names the studies that the asker sees."""
    maker = await _whose(tx, project_id)
    rows = await tx.fetch(
        f"select l.id, l.name, l.created_by, u.username as creator, l.actions, {_STATE} as state, l.created_at, l.expires_at,"
        " l.last_used_at, l.uses, l.max_uses, l.password_hash is not null as has_password, l.revoked_at"
        " from share_links l join users u on u.id = l.created_by where l.project_id = $1"
        " and ($2::uuid is null or l.created_by = $2) order by l.id desc limit $3",
        project_id, maker, MAX_LINKS,
    )  # fmt: skip
    studies = await _named_studies(tx, [row["id"] for row in rows])
    return [ShareLink(**dict(row), studies=studies.get(row["id"], [])) for row in rows]


async def revoke_share_link(tx: WriteTx, project_id: UUID, link_id: UUID) -> None:
    """Raises NotFound for a link that is neither one's own nor of a project that one manages. Twice is no error."""
    maker = await _whose(tx, project_id)
    link = await tx.fetchrow(
        "select created_by, revoked_at from share_links where id = $1 and project_id = $2"
        " and ($3::uuid is null or created_by = $3) for update",
        link_id, project_id, maker,
    )  # fmt: skip
    if link is None:
        raise NotFound("There is no such share link.")
    if link["revoked_at"] is not None:
        return
    await tx.execute(
        "update share_links set revoked_at = now(), revoked_by = $2 where id = $1", link_id, tx.actor.user_id
    )
    await _emit(tx, "share_link.revoked", link_id, project_id, {})
    await announce(tx, link["created_by"])


async def _whose(tx: ReadTx, project_id: UUID) -> UUID | None:
    """Of whose making the links are that the actor manages; None: everybody's. Raises NotFound to who is no member."""
    await require_member(tx, tx.actor, project_id)
    with contextlib.suppress(Forbidden):
        await require(tx, tx.actor, Permission.PROJECT_MANAGE, project_id)
        return None
    return tx.actor.user_id


async def _items(tx: ReadTx, project_id: UUID, studies: list[SharedStudy]) -> list[tuple[int, int | None]]:
    """(study, series); no series is the whole study."""
    if not 1 <= len(studies) <= MAX_STUDIES or len({one.study_instance_uid for one in studies}) < len(studies):
        raise BadRequest(f"A link names 1 to {MAX_STUDIES} studies, each once.")
    if sum(len(one.series_instance_uids) for one in studies) > MAX_SERIES:
        raise BadRequest(f"A link names at most {MAX_SERIES} series.")
    items: list[tuple[int, int | None]] = []
    for one in studies:
        if not one.series_instance_uids:
            items += [(held, None) for held in await require_holdings(tx, project_id, one.study_instance_uid)]
        for series in sorted(set(one.series_instance_uids)):
            held = await require_holdings(tx, project_id, one.study_instance_uid, series_instance_uid=series)
            rows = await tx.fetch(
                "select study_id, id from series where series_instance_uid = $1 and study_id = any($2) order by id",
                series, held,
            )  # fmt: skip
            items += [(row["study_id"], row["id"]) for row in rows]
    return items


async def _named_studies(tx: ReadTx, link_ids: list[UUID]) -> dict[UUID, list[SharedStudy]]:
    rows = await tx.fetch(
        "select sh.link_id, st.study_instance_uid,"
        " coalesce(array_agg(distinct se.series_instance_uid) filter (where se.id is not null), '{}') as series"
        " from share_link_items sh join studies st on st.id = sh.study_id left join series se on se.id = sh.series_id"
        " where sh.link_id = any ($1) and (sh.series_id is null or se.id is not null)"
        " group by sh.link_id, st.study_instance_uid order by min(st.id)",
        link_ids,
    )
    found: dict[UUID, list[SharedStudy]] = {}
    for row in rows:
        found.setdefault(row["link_id"], []).append(SharedStudy(row["study_instance_uid"], row["series"]))
    return found


# -- by who holds one -------------------------------------------------------------------------------------------------


async def open_share_link(
    services: Services, signer: TokenSigner, *, token: str, password: str | None, peer: Peer
) -> SharedAccess:
    """One use of the link. Raises ShareRefused with one wording for whatever ended the link, SharePasswordNeeded."""
    network = network_of(peer.address)
    await throttle.count_attempt(services, throttle.SHARE_LINK, network)
    async with services.db.read(SYSTEM) as tx:
        link = await tx.fetchrow(
            "select l.id, l.project_id, l.created_by, u.username, l.password_hash from share_links l"
            " join users u on u.id = l.created_by where l.hash = $1",
            secret_hash(token),
        )
    if link is None:
        await _refuse(services, SYSTEM, None, None, "unknown")
    holder = _holder(link, [])
    if link["password_hash"] is not None:
        if password is None:
            raise SharePasswordNeeded("This link takes a password.")
        await throttle.count_attempt(services, throttle.SHARE_PASSWORD, str(link["id"]), network)
        if not await password_matches(link["password_hash"], password):
            await _refuse(services, holder, link["id"], link["project_id"], "password")
    async with services.db.write(holder) as tx:
        used, named = await _use(tx, link["id"])
        if used is not None:
            await throttle.give_back(tx, throttle.SHARE_LINK, network)
            await throttle.forgive(tx, throttle.SHARE_PASSWORD, str(link["id"]), network)
            await _emit(tx, "share_link.used", link["id"], link["project_id"], {"use": used["uses"]})
    if used is None:
        await _refuse(services, holder, link["id"], link["project_id"], "ended")
    now = services.clock.now()
    lifetime = min(LIFETIME, used["expires_at"] - now)
    return SharedAccess(
        access_token=signer.sign_share(link["id"], now=now, lifetime=lifetime),
        token_type="Bearer",  # noqa: S106 - the scheme's name (RFC 6750), no secret
        expires_in=max(0, int(lifetime.total_seconds())),
        name=used["name"],
        actions=used["actions"],
        expires_at=used["expires_at"],
        studies=named,
    )


async def _use(tx: WriteTx, link_id: UUID) -> tuple[Any | None, list[SharedStudy]]:
    """Counts one use, if the link stands and something of what it names is seen. The row's lock keeps to `max_uses`."""
    used = await tx.fetchrow(
        "update share_links set uses = uses + 1, last_used_at = now() where id = $1 and (max_uses is null or uses < max_uses)"
        f" and exists (select from {_STANDS} and l.id = $1)"
        " and exists (select from visibility v) returning name, actions, expires_at, uses",
        link_id,
    )
    return used, [] if used is None else (await _named_studies(tx, [link_id])).get(link_id, [])


async def share_actor(services: Services, link_id: UUID) -> Actor:
    """Who comes by a link whose token was exchanged. Raises Unauthenticated once the link ended in any way."""
    async with services.db.read(SYSTEM) as tx:
        link = await tx.fetchrow(
            "select l.id, l.project_id, l.created_by, u.username, l.actions, m.permissions"
            f" from {_STANDS} and l.id = $1",
            link_id,
        )
    if link is None:
        raise Unauthenticated("The share link has ended.")
    return _holder(link, [NEEDS[action] for action in link["actions"] if NEEDS[action] in link["permissions"]])


def _holder(link: Any, permissions: list[Permission]) -> Actor:
    return Actor(
        user_id=link["created_by"],
        name=link["username"],
        kind="share_link",
        project_ids=frozenset({link["project_id"]}),
        scopes=frozenset(permission.value for permission in permissions),
        share_link_id=link["id"],
    )


async def _refuse(
    services: Services,
    holder: Actor,
    link_id: UUID | None,
    project_id: UUID | None,
    why: Literal["unknown", "password", "ended"],
) -> NoReturn:
    async with services.db.write(holder) as tx:
        await _emit(tx, "share_link.refused", link_id, project_id, {"why": why})
    if why == "password":
        raise SharePasswordNeeded("The password is not right.")
    raise ShareRefused("The link is not valid any more.")


async def _emit(
    tx: WriteTx, event_type: str, link_id: UUID | None, project_id: UUID | None, data: dict[str, Any]
) -> None:
    await emit(
        tx,
        Event(
            type=event_type,
            object_kind="share_link",
            object_id=str(link_id or "unknown"),
            project_id=project_id,
            data=data,
        ),
    )
