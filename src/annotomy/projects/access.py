"""Every permission rule. `require` raises and never returns a verdict; reads of DICOM rows carry the view `visibility`.

The view (first migration) is the one statement of who sees which study, series and instance; row-level security reads it
as well. docs/explanation/access.md says what the words mean.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx, WriteTx, restricted
from annotomy.errors import Forbidden, NotFound
from annotomy.projects.roles import PERMISSION_NAMES, ROLES, SCOPE_NAMES, Permission, holds, in_scope

__all__ = [
    "ROLES",
    "SCOPE_NAMES",
    "Holding",
    "OrderKey",
    "Permission",
    "first_instance",
    "first_series",
    "first_study",
    "held_in",
    "key_reaches",
    "require",
    "require_all_held",
    "require_declared",
    "require_global",
    "require_holding",
    "require_holdings",
    "require_member",
    "require_own_or_all",
    "require_scope",
    "require_study",
    "sees_few",
    "sees_whole_study",
    "study_to_grow",
    "takeable_instances",
    "visible_instances",
    "visible_page",
    "visible_series",
    "visible_studies",
    "visible_target",
    "visible_walk",
    "visible_work",
]  # fmt: skip

VALID = "(m.valid_from is null or m.valid_from <= now()) and (m.expires_at is null or m.expires_at > now())"
"""A membership `m` that holds now."""
_ACTOR = "(select nullif(current_setting('app.actor', true), '')::uuid)"
_PROJECTS = "(select nullif(current_setting('app.project', true), '')::uuid[])"
_NOT_SHARED = "(select nullif(current_setting('app.share', true), '')) is null"

SHARES = (
    f"exists (select from project_members sm where sm.project_id = v.project_id and sm.user_id = {_ACTOR}"
    " and 'study.share' = any (sm.permissions))"
)
"""A row `v` of the view that comes through a project whose studies the actor may bring into other projects."""


# -- permissions ------------------------------------------------------------------------------------------------------


async def require(tx: ReadTx, actor: Actor, permission: Permission | str, project_id: UUID) -> None:
    """Raises NotFound to who is not a member (the project's existence is theirs alone), else Forbidden."""
    held = await _held(tx, actor, project_id)
    if not holds(held, permission):
        raise _forbidden(permission)
    require_scope(actor, permission)


async def require_member(tx: ReadTx, actor: Actor, project_id: UUID) -> None:
    """Raises NotFound to who is not."""
    await _held(tx, actor, project_id)


async def require_holding(tx: ReadTx, actor: Actor, permissions: Iterable[str], project_id: UUID) -> None:
    """For who gives permissions in a project: nobody gives what they do not hold there. Raises NotFound, else Forbidden."""
    require_all_held(await _held(tx, actor, project_id), permissions)


def require_all_held(held: Collection[str], permissions: Iterable[str]) -> None:
    """As `require_holding`, of what `held_in` told."""
    lacking = sorted(one for one in permissions if not holds(held, one))
    if lacking:
        raise Forbidden("You cannot give permissions that your own role lacks.", lacking=lacking)


async def held_in(tx: ReadTx, actor: Actor, project_ids: Collection[UUID]) -> dict[UUID, frozenset[str]]:
    """The actor's permissions in each of these projects; one that is not in the answer does not exist for the actor."""
    rows = await tx.fetch(
        f"select m.project_id, m.permissions from project_members m where m.user_id = $1 and m.project_id = any($2) and {VALID}"
        " and ($3::uuid[] is null or m.project_id = any ($3))",
        actor.user_id, list(project_ids), actor.project_ids,
    )  # fmt: skip
    return {row["project_id"]: frozenset(row["permissions"]) for row in rows}


async def require_own_or_all(tx: ReadTx, actor: Actor, action: str, project_id: UUID, owner_id: UUID) -> None:
    """For work with an owner; `action` is `annotation.edit`, `segmentation.read`, ...

    Raises NotFound to who may not even read this work (somebody else's work is a blinded reader's secret), else Forbidden.
    """
    held = await _held(tx, actor, project_id)
    kind = action.partition(".")[0]
    reach = "own" if owner_id == actor.user_id else "all"
    if not holds(held, f"{kind}.read.{reach}"):
        raise NotFound(f"There is no such {kind}.")
    if not holds(held, f"{action}.{reach}"):
        raise _forbidden(f"{action}.{reach}")
    require_scope(actor, f"{action}.{reach}")


async def require_global(tx: ReadTx, actor: Actor, permission: Permission) -> None:
    """For what stands outside of projects. Raises Forbidden."""
    held = set[str](ROLES["system_administrator"] if actor.is_admin else ())
    if actor.project_ids is None:
        for row in await tx.fetch("select role from global_roles where user_id = $1", actor.user_id):
            held |= ROLES.get(row["role"], frozenset())
    if actor.project_ids is not None or not holds(held, permission):
        raise _forbidden(permission)
    require_scope(actor, permission)


def require_scope(actor: Actor, permission: str) -> None:
    """Raises Forbidden for an API key whose scopes do not reach the permission."""
    if not in_scope(actor.scopes, permission):
        raise Forbidden(f"The API key lacks the scope {permission}.", permission=str(permission))


def require_declared(actor: Actor, declared: str, *, changes: bool, shared: str | None = None) -> None:
    """At the edge, before anything is read: whether an API key's scopes reach what a route declares.

    Routes about one's own things or for any member demand `read`, or `write` when they change something. A share link
    reaches the routes that declare what it needs for them (`shared`) and no other.
    """
    if actor.kind == "share_link" and (shared is None or shared not in (actor.scopes or ())):
        raise Forbidden("A share link does not reach this.")
    if actor.scopes is None:
        return
    if declared in PERMISSION_NAMES:
        require_scope(actor, declared)
    elif changes and not {"write", "admin"} & actor.scopes:
        raise Forbidden("The API key lacks the scope write.", permission="write")


def _forbidden(permission: str) -> Forbidden:
    return Forbidden(f"Your role lacks the permission {permission}.", permission=str(permission))


async def _held(tx: ReadTx, actor: Actor, project_id: UUID) -> frozenset[str]:
    """The permissions of the actor's role in the project."""
    held: list[str] | None = None
    if actor.reaches(project_id):
        held = await tx.fetchval(
            f"select m.permissions from project_members m where m.project_id = $1 and m.user_id = $2 and {VALID}",
            project_id, actor.user_id,
        )  # fmt: skip
    if held is None:
        raise NotFound("There is no such project.")
    return frozenset(held)


# -- visibility -------------------------------------------------------------------------------------------------------
# Each predicate takes the SQL of keys and is true for what the transaction's actor sees through any project. With
# `project`, the SQL of a project's key, through that project alone.


def visible_studies(study_id: str, *, project: str | None = None) -> str:
    """Studies of which the actor sees something."""
    return f"exists (select from visibility v where v.study_id = {study_id}{_through(project)})"


def visible_series(series: str, *, project: str | None = None) -> str:
    """Series of which the actor sees something; `series` is the alias of the table."""
    return (
        f"exists (select from visibility v where v.study_id = {series}.study_id{_through(project)}"
        f" and (v.series_id is null or v.series_id = {series}.id))"
    )


def visible_instances(instance: str, *, project: str | None = None) -> str:
    """`instance` is the alias of the table."""
    return (
        f"exists (select from visibility v where v.study_id = {instance}.study_id{_through(project)}"
        f" and (v.series_id is null or v.series_id = {instance}.series_id)"
        f" and (v.instance_id is null or v.instance_id = {instance}.id))"
    )


# A UID may be kept in several holdings (docs/decisions/0010); to who sees several it is one study. Lists show it where it was
# kept first of what is seen: each alias is a table's. Subqueries for one row each: they are asked of repeated studies alone.


def first_study(study: str, *, project: str | None = None) -> str:
    return (
        f"(not {study}.repeated or {study}.id = (select min(fst.id) from studies fst"
        f" where fst.study_instance_uid = {study}.study_instance_uid and {visible_studies('fst.id', project=project)}))"
    )


def first_series(study: str, series: str) -> str:
    return (
        f"(not {study}.repeated or {series}.id = (select min(fse.id) from series fse join studies fst on fst.id = fse.study_id"
        f" where fse.series_instance_uid = {series}.series_instance_uid"
        f" and fst.study_instance_uid = {study}.study_instance_uid and {visible_series('fse')}))"
    )


def first_instance(study: str, instance: str) -> str:
    return (
        f"(not {study}.repeated or {instance}.id = (select min(fi.id) from instances fi join studies fst on fst.id = fi.study_id"
        f" where fi.sop_instance_uid = {instance}.sop_instance_uid"
        f" and fst.study_instance_uid = {study}.study_instance_uid and {visible_instances('fi')}))"
    )


def takeable_instances(instance: str, project: str) -> str:
    """Instances that the actor may bring into a project: seen there already, or where their role brings studies elsewhere."""
    return (
        f"exists (select from visibility v where v.study_id = {instance}.study_id and (v.project_id = {project} or {SHARES})"
        f" and (v.series_id is null or v.series_id = {instance}.series_id)"
        f" and (v.instance_id is null or v.instance_id = {instance}.id))"
    )


def visible_target(alias: str) -> str:
    """Rows that hang on DICOM objects by `project_id`, `study_id` and, where they name one, `series_instance_uid`.

    True where the actor sees that holding of the study, and the series if one is named, through the row's own project. Not by
    the study's UID: whoever stores something under it would come to see what hangs on what others keep.
    """
    return (
        f"exists (select from visibility v where v.study_id = {alias}.study_id and v.project_id = {alias}.project_id"
        f" and (v.series_id is null or {alias}.series_instance_uid is null or exists (select from series vse"
        f" where vse.id = v.series_id and vse.series_instance_uid = {alias}.series_instance_uid)))"
    )


OrderKey = tuple[str, str]
"""An SQL expression, and `asc` or `desc`, perhaps with `nulls last`."""
_ITEMS = (
    "project_items pi join studies st on st.id = pi.study_id and st.study_at = pi.study_at",
    " join series se on se.study_id = st.id and (pi.series_id is null or se.id = pi.series_id)",
    " join instances i on i.series_id = se.id and (pi.instance_id is null or i.id = pi.instance_id)",
)


def visible_page(
    depth: int, columns: str, conditions: Sequence[str], order: Sequence[OrderKey], *, limit: int, offset: int
) -> str:
    """A page of what the actor sees, as a statement: the items of each of their audiences are walked in their order and the
    walk ends with the page, however much there is and whatever the planner believes that somebody sees.

    `depth` 0 has studies st, 1 also series se, 2 also instances i; `order` begins with the study's `study_at` and `id`, both
    the same way. With another order everything that the actor sees is sorted: see `sees_few`. The other predicates are for
    what a condition has narrowed to little.
    """
    # The items are those of a link's maker; the view alone knows what the link names of them.
    named = (visible_studies("st.id"), visible_series("se"), visible_instances("i"))[depth]
    shared = f"({_NOT_SHARED} or {named})"
    inner = (
        f"select distinct on ({', '.join(key for key, _ in order)})"
        f" {', '.join(f'{key} as o{n}' for n, (key, _) in enumerate(order))}, {columns},"
        f" (pi.series_id is null and {_NOT_SHARED}) as whole from {''.join(_ITEMS[: depth + 1])}"
        f" where {' and '.join(('pi.project_id = a.project_id', 'pi.audience_id = a.audience_id', shared, *conditions))}"
        f" order by {', '.join(f'{key} {way}' for key, way in order)} limit {limit + offset}"
    )
    return (
        f"select distinct on ({', '.join(f'v.o{n}' for n in range(len(order)))}) v.* from actor_audiences a"
        f" cross join lateral ({inner}) v"
        f" order by {', '.join(f'v.o{n} {way}' for n, (_, way) in enumerate(order))} limit {limit} offset {offset}"
    )


FEW_VISIBLE = 5000
"""Items up to which all that somebody sees is sorted for a page, some 20 ms. Who sees more finds the rows of a page in as many
steps of an index of all studies: about the same again, in an archive of a quarter of a million studies."""


async def sees_few(tx: ReadTx) -> bool:
    """Whether `visible_page` in any order costs little; else `visible_walk` does."""
    return await tx.fetchval(_COUNT_VISIBLE) <= FEW_VISIBLE


_COUNT_VISIBLE = f"select count(*) from (select from visibility v limit {FEW_VISIBLE + 1}) seen"


def visible_walk(
    depth: int, columns: str, conditions: Sequence[str], order: Sequence[OrderKey], *, limit: int, offset: int
) -> str:
    """As `visible_page`, in the order of an index of the studies: it is walked, and each row asked whether the actor sees it.

    For who sees much of the archive.
    """
    source = ("studies st", " join series se on se.study_id = st.id", " join instances i on i.series_id = se.id")
    below = (
        "",
        " and (v.series_id is null or v.series_id = se.id)",
        " and (v.series_id is null or v.series_id = i.series_id) and (v.instance_id is null or v.instance_id = i.id)",
    )[depth]
    # The limit keeps it a question for each row: a join would begin with gathering all that the actor sees.
    seen = f"cross join lateral (select v.series_id is null as whole from visibility v where v.study_id = st.id{below} limit 1) seen"
    return (
        f"select {', '.join(f'{key} as o{n}' for n, (key, _) in enumerate(order))}, {columns}, seen.whole"
        f" from {''.join(source[: depth + 1])} {seen} where {' and '.join(('true', *conditions))}"
        f" order by {', '.join(f'{key} {way}' for key, way in order)} limit {limit} offset {offset}"
    )


def visible_work(kind: str, project_id: str, owner_id: str) -> str:
    """Work that the actor may read by role: everybody's, or one's own; `kind` is annotation or segmentation."""
    return (
        f"exists (select from project_members m where m.user_id = {_ACTOR} and m.project_id = {project_id} and {VALID}"
        f" and {key_reaches('m.project_id')} and {_NOT_SHARED}"
        f" and ('{kind}.read.all' = any (m.permissions)"
        f" or {owner_id} = m.user_id and '{kind}.read.own' = any (m.permissions)))"
    )


def key_reaches(project_id: str) -> str:
    """For rows that are somebody's own: an API key that is bound to projects reaches those of these projects alone."""
    return f"({_PROJECTS} is null or {project_id} = any ({_PROJECTS}::uuid[]))"


def _through(project: str | None) -> str:
    return "" if project is None else f" and v.project_id = {project}"


async def require_study(
    tx: ReadTx,
    actor: Actor,
    project_id: UUID,
    study_instance_uid: str,
    *,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> int:
    """The study's key, when the actor sees it through this project - and the series and the instance, where named. Of several
    holdings it is the first.

    Raises NotFound otherwise.
    """
    del actor  # the transaction's own
    named = {"series_instance_uid": series_instance_uid, "sop_instance_uid": sop_instance_uid}
    return (await require_holdings(tx, project_id, study_instance_uid, **named))[0]


async def require_holdings(
    tx: ReadTx,
    project_id: UUID,
    study_instance_uid: str,
    *,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
) -> list[int]:
    """As `require_study`, of all holdings with what is named, the first one first."""
    rows = await tx.fetch(
        f"select st.id from studies st where st.study_instance_uid = $1 and {visible_studies('st.id', project='$2')}"
        " and ($3::text is null or exists (select from series se where se.study_id = st.id and se.series_instance_uid = $3"
        f" and {visible_series('se', project='$2')}))"
        " and ($4::text is null or exists (select from instances i join series se on se.id = i.series_id"
        " where i.study_id = st.id and i.sop_instance_uid = $4 and ($3::text is null or se.series_instance_uid = $3)"
        f" and {visible_instances('i', project='$2')})) order by st.id",
        study_instance_uid, project_id, series_instance_uid, sop_instance_uid,
    )  # fmt: skip
    if not rows:
        raise NotFound("There is no such study in this project.")
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class Holding:
    id: int
    sole_sender: UUID | None
    """Who stored all that is in it; None once others did."""


async def study_to_grow(tx: WriteTx, actor: Actor, project_id: UUID, study_instance_uid: str) -> Holding | None:
    """For the store operation alone, which writes with row-level security open: the first holding of this UID that may grow by
    the actor's hand when they store into the project, locked.

    They see it as a whole: through this project, which holds it as a whole, or through one whose studies they may bring into
    others. Who sees less is answered as who sees nothing, so that neither what is hidden shows nor anybody gains it.
    """
    async with restricted(tx, actor):
        row = await tx.fetchrow(
            "select st.id, st.sole_sender from studies st where st.study_instance_uid = $1 and exists (select from visibility v"
            f" where v.study_id = st.id and v.series_id is null and ({SHARES} or v.project_id = $2 and exists ("
            "select from project_studies ps where ps.study_id = st.id and ps.project_id = $2 and ps.series_id is null)))"
            " order by st.id limit 1 for no key update of st",
            study_instance_uid, project_id,
        )  # fmt: skip
    return None if row is None else Holding(row["id"], row["sole_sender"])


async def sees_whole_study(tx: ReadTx, actor: Actor, study_id: int) -> bool:
    """In a transaction with row-level security open: all of it, through a project whose studies the actor may bring into others."""
    async with restricted(tx, actor):
        return await tx.fetchval(
            f"select exists (select from visibility v where v.study_id = $1 and v.series_id is null and {SHARES})",
            study_id,
        )
