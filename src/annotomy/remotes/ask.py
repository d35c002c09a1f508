"""Asking a remote now: is it there, which studies and series does it hold. Its answer passes the project's rules before anybody sees it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from annotomy.actor import Actor
from annotomy.audit import Entry, record
from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest, Problem
from annotomy.events import Event, emit
from annotomy.http.pages import Page, decode_cursor, encode_cursor
from annotomy.identity.seal import Seal
from annotomy.projects.access import Permission, require_global, visible_series, visible_studies
from annotomy.remotes.errors import RemoteHoldsNothing
from annotomy.remotes.registry import open_remote, require_open
from annotomy.remotes.remote_archive import Openers, RemoteArchive, uid_of
from annotomy.remotes.schemas import Echo, RemoteRow
from annotomy.remotes.shown import MODALITIES, policy_for, shown_series, shown_studies
from annotomy.services import Services

MAX_ROWS = 5000
"""Rows of a remote that one request looks through: who wants more narrows the question."""
MAX_SERIES = 10_000
"""Of one study; real ones have some dozen."""
LOOK_AHEAD = 4
"""How many times more rows are asked for when rules hid most of those that came."""


async def echo(services: Services, openers: Openers, actor: Actor, remote_id: UUID) -> Echo:
    """For administrators. A failure is an answer here."""
    async with services.db.read(actor) as tx:
        await require_global(tx, actor, Permission.SYSTEM_MANAGE)
    archive = await opened(services, openers, actor, remote_id)
    began, problem = time.monotonic(), None
    try:
        await archive.echo()
    except Problem as failure:
        problem = failure
    took = round((time.monotonic() - began) * 1000)
    async with services.db.write(actor) as tx:
        data = {"milliseconds": took} | ({} if problem is None else {"problem": problem.slug})
        outcome = "success" if problem is None else "failure"
        await emit(
            tx,
            Event(type="remote.tested", object_kind="remote", object_id=str(remote_id), outcome=outcome, data=data),
        )
    return Echo(ok=problem is None, milliseconds=took, problem=None if problem is None else problem.to_json())


async def opened(services: Services, openers: Openers, actor: Actor, remote_id: UUID) -> RemoteArchive:
    """The caller decided the right. Raises NotFound."""
    async with services.db.read(actor) as tx:
        remote = await open_remote(tx, Seal(services.settings.identity.secret), remote_id)
    return openers[remote.kind](services, remote)


async def query_studies(
    services: Services,
    openers: Openers,
    actor: Actor,
    remote_id: UUID,
    project_id: UUID,
    match: Mapping[str, str],
    *,
    limit: int,
    cursor: str | None,
) -> Page[RemoteRow]:
    """A page of the studies that the remote holds and the asker may see in the project."""
    async with services.db.read(actor) as tx:
        await require_open(tx, actor, Permission.REMOTE_QUERY, remote_id, project_id)
    [skipped] = decode_cursor(cursor, (int,)) if cursor else (0,)
    assert isinstance(skipped, int)
    if not 0 <= skipped < MAX_ROWS:
        raise BadRequest(f"A remote's answer is looked through up to {MAX_ROWS} rows: narrow the question.")
    archive = await opened(services, openers, actor, remote_id)
    needed = skipped + limit + 1
    wanted = min(needed, MAX_ROWS)
    while True:  # hidden rows must not show as gaps
        found = await archive.query("study", match, limit=wanted)
        async with services.db.read(actor) as tx:
            shown = await shown_studies(tx, await policy_for(tx, project_id), found.rows)
        shown = [row for row in shown if _has_modality(row, match.get("ModalitiesInStudy", ""))]
        if len(shown) >= needed or found.complete or wanted == MAX_ROWS:
            break
        wanted = min(wanted * LOOK_AHEAD, MAX_ROWS)
    page, rest = shown[skipped : skipped + limit], shown[skipped + limit :]
    async with services.db.write(actor) as tx:
        items = await with_holding(tx, [(row, "present") for row in page])
        entry = Entry(
            action="remote.queried",
            object_kind="remote",
            object_id=str(remote_id),
            project_id=project_id,
            detail={"keys": sorted(match), "rows": len(items)},
        )
        await record(tx, entry)
    return Page(items=items, next=encode_cursor(skipped + limit) if rest else None, total=None)


async def query_series(
    services: Services, openers: Openers, actor: Actor, remote_id: UUID, project_id: UUID, study_instance_uid: str
) -> Page[RemoteRow]:
    """The series of one study that the asker may see in the project. Raises RemoteHoldsNothing, also for a study that rules hide."""
    async with services.db.read(actor) as tx:
        await require_open(tx, actor, Permission.REMOTE_QUERY, remote_id, project_id)
    archive = await opened(services, openers, actor, remote_id)
    rows = await series_shown(services, actor, archive, project_id, study_instance_uid)
    async with services.db.write(actor) as tx:
        held = await _held_series(tx, [uid_of(row, "series") or "" for row in rows])
        entry = Entry(
            action="remote.queried",
            object_kind="remote",
            object_id=str(remote_id),
            project_id=project_id,
            study_instance_uid=study_instance_uid,
            detail={"rows": len(rows)},
        )
        await record(tx, entry)
    items = [
        RemoteRow(study_instance_uid, uid, row, uid in held)
        for row in rows
        if (uid := uid_of(row, "series")) is not None
    ]
    return Page(items=items, next=None, total=len(items))


async def series_shown(
    services: Services, actor: Actor, archive: RemoteArchive, project_id: UUID, study_instance_uid: str
) -> list[dict[str, Any]]:
    """Raises RemoteHoldsNothing."""
    match = {"StudyInstanceUID": study_instance_uid}
    studies = [
        row for row in (await archive.query("study", match, limit=2)).rows if uid_of(row, "study") == study_instance_uid
    ]
    rows: list[dict[str, Any]] = []
    if studies:
        found = await archive.query("series", match, limit=MAX_SERIES)
        async with services.db.read(actor) as tx:
            rows = await shown_series(tx, await policy_for(tx, project_id), studies[0], found.rows)
    if not rows:
        raise RemoteHoldsNothing("The remote holds nothing of this study that you may see.")
    return rows


async def with_holding(tx: ReadTx, rows: Sequence[tuple[dict[str, Any], Any]]) -> list[RemoteRow]:
    """Studies with their state, and whether something of each is here where the transaction's actor sees it."""
    uids = [uid_of(row, "study") or "" for row, _ in rows]
    found = await tx.fetch(
        f"select st.study_instance_uid from studies st where st.study_instance_uid = any($1) and {visible_studies('st.id')}",
        uids,
    )
    held = {row["study_instance_uid"] for row in found}
    return [RemoteRow(uid, None, row, uid in held, state) for uid, (row, state) in zip(uids, rows, strict=True)]


async def _held_series(tx: ReadTx, uids: list[str]) -> set[str]:
    rows = await tx.fetch(
        f"select se.series_instance_uid from series se where se.series_instance_uid = any($1) and {visible_series('se')}",
        uids,
    )
    return {row["series_instance_uid"] for row in rows}


async def holding_of(tx: ReadTx, project_id: UUID, study_instance_uid: str) -> int | None:
    """The project's own holding of a study: what an event about it hangs on."""
    return await tx.fetchval(
        "select ps.study_id from project_studies ps join studies st on st.id = ps.study_id"
        " where ps.project_id = $1 and st.study_instance_uid = $2 order by ps.study_id limit 1",
        project_id, study_instance_uid,
    )  # fmt: skip


def _has_modality(row: Mapping[str, Any], asked: str) -> bool:
    """A modality of which everything is hidden finds nothing; a remote that does not tell modalities is believed."""
    element = row.get(MODALITIES)
    told: list[Any] = element.get("Value") or [] if isinstance(element, dict) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return not asked or not told or bool({*asked.replace(",", "\\").split("\\")} & {*told})
