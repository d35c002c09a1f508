"""Workitems created, read, updated, claimed, finished (PS3.4 CC.2). A workitem belongs to a project and is seen in it.

That of a prediction (`prediction_id`) is performed by this server: its state is the prediction's, and nobody else sets it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, NotFound, TooLarge
from annotomy.events import Event, emit
from annotomy.jobs.queue import cancel_job
from annotomy.projects.access import (
    Permission,
    require,
    require_study,
    visible_target,
    visible_work,
)
from annotomy.workitems import attributes as said
from annotomy.workitems.errors import WorkitemNotYours, WorkitemRefused
from annotomy.workitems.states import FINAL, REQUESTS, WORDS, Json, Request, State, step, unmet

# The state of a prediction is its outcome or its job's; of all others the row's own.
STATE_SQL = (
    "case when w.prediction_id is null then w.state else case coalesce(p.outcome, j.state) when 'queued' then 'SCHEDULED'"
    " when 'running' then 'IN PROGRESS' when 'succeeded' then 'COMPLETED' else 'CANCELED' end end"
)
_MODIFIED = "greatest(w.updated_at, j.started_at, j.finished_at)"
_MEMBER = "(select nullif(current_setting('app.actor', true), '')::uuid)"
VISIBLE = (
    "exists (select from project_members m where m.project_id = w.project_id and m.reads"
    f" and m.user_id = {_MEMBER} and (m.valid_from is null or m.valid_from <= now())"
    " and (m.expires_at is null or m.expires_at > now())"
    " and ((select nullif(current_setting('app.project', true), '')) is null"
    " or m.project_id = any ((select nullif(current_setting('app.project', true), '')::uuid[])::uuid[])))"
    f" and (w.study_instance_uid is null or {visible_target('w')})"
    f" and (w.prediction_id is null or {visible_work('segmentation', 'w.project_id', 'w.created_by')})"
)
FROM = " from workitems w left join predictions p on p.id = w.prediction_id left join jobs j on j.id = p.job_id"
SELECT = (
    "select w.id, w.workitem_uid, w.project_id, w.study_id, w.study_instance_uid, w.series_instance_uid, w.attributes, w.transaction_uid,"
    f" w.prediction_id, w.created_at, p.job_id, {STATE_SQL} as state, {_MODIFIED} as modified_at"
)


@dataclass(frozen=True, slots=True)
class Workitem:
    id: UUID
    workitem_uid: str
    project_id: UUID
    study_id: int | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    attributes: Json
    transaction_uid: str | None
    """The lock: told to nobody but whoever set it."""
    prediction_id: UUID | None
    created_at: datetime
    job_id: UUID | None
    state: str
    modified_at: datetime

    def to_json(self) -> Json:
        """As retrieved (PS3.4 CC.2.7): all of it, without the lock."""
        found = self.attributes | {
            said.CLASS: {"vr": "UI", "Value": [said.UPS_PUSH]},
            said.INSTANCE: {"vr": "UI", "Value": [self.workitem_uid]},
            said.STATE: {"vr": "CS", "Value": [self.state]},
            said.MODIFIED: {"vr": "DT", "Value": [said.dicom_time(self.modified_at)]},
        }
        return dict(sorted(found.items()))


async def get_workitem(tx: ReadTx, workitem_uid: str, *, for_update: bool = False) -> Workitem:
    """Raises NotFound."""
    lock = " for no key update of w" if for_update else ""
    row = await tx.fetchrow(
        f"{SELECT}{FROM} where w.workitem_uid = $1 and {VISIBLE} order by w.id limit 1{lock}", workitem_uid
    )
    if row is None:
        raise NotFound("There is no such workitem.")
    return Workitem(**dict(row))


async def create_workitem(tx: WriteTx, project_id: UUID, workitem_uid: str | None, body: bytes) -> str:
    """Its UID. Raises NotFound, Forbidden, BadRequest, WorkitemRefused."""
    await require(tx, tx.actor, Permission.WORKITEM_SCHEDULE, project_id)
    given = said.checked(body)
    kept = said.new_workitem(given)
    named = workitem_uid or said.text(given, said.INSTANCE) or f"2.25.{new_id().int}"
    if not _is_uid(named):
        raise BadRequest("The workitem is named by a UID.")
    study, series = said.place_of(kept)
    study_id: int | None = None
    if study is not None:
        study_id = await require_study(tx, tx.actor, project_id, study, series_instance_uid=series)
    elif series is not None:
        raise BadRequest("An input that names a series names its study.")
    # The UID is taken for who sees its workitem. Who does not is answered as if there were none.
    await tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 1))", named)
    if await tx.fetchval(f"select exists (select{FROM} where w.workitem_uid = $1 and {VISIBLE})", named):
        raise WorkitemRefused("There is a workitem of this UID.", status_code=0x0111)
    await tx.execute(
        "insert into workitems (id, workitem_uid, project_id, study_instance_uid, series_instance_uid, attributes,"
        " created_by, study_id) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        new_id(), named, project_id, study, series, _bounded(kept), tx.actor.user_id, study_id,
    )  # fmt: skip
    await _tell(tx, "workitem.created", await get_workitem(tx, named))
    return named


async def create_of_prediction(
    tx: WriteTx,
    *,
    prediction_id: UUID,
    project_id: UUID,
    study_id: int,
    series_instance_uid: str,
    model: str,
    version: str,
) -> None:
    """In the transaction that asks for the prediction, whose right has been decided. Its events are the prediction's."""
    row = await tx.fetchrow(
        "select st.study_instance_uid, st.attributes, now() as at from studies st where st.id = $1", study_id
    )
    assert row is not None, "a prediction is asked for a series that is kept"
    study: str = row["study_instance_uid"]
    source: Json = {
        said.STUDY: {"vr": "UI", "Value": [study]},
        said.SERIES: {"vr": "UI", "Value": [series_instance_uid]},
        "0040E020": {"vr": "CS", "Value": ["DICOM"]},
    }
    kept: Json = {tag: row["attributes"][tag] for tag in ("00100010", "00100020") if tag in row["attributes"]} | {
        "00741200": {"vr": "CS", "Value": ["MEDIUM"]},
        "00741202": {"vr": "LO", "Value": ["predictions"]},
        "00741204": {"vr": "LO", "Value": [f"{model} {version}"[:64]]},
        "00404005": {"vr": "DT", "Value": [said.dicom_time(row["at"])]},
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00404018": said.code("110005", "DCM", "Interpretation"),
        said.INPUT: {"vr": "SQ", "Value": [source]},
    }
    await tx.execute(
        "insert into workitems (id, workitem_uid, project_id, study_instance_uid, series_instance_uid, attributes,"
        " prediction_id, created_by, study_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        new_id(), f"2.25.{prediction_id.int}", project_id, study, series_instance_uid, kept, prediction_id,
        tx.actor.user_id, study_id,
    )  # fmt: skip


async def update_workitem(tx: WriteTx, workitem_uid: str, body: bytes, transaction_uid: str | None) -> None:
    """PS3.4 CC.2.6. Raises NotFound, Forbidden, BadRequest, WorkitemNotYours, WorkitemRefused."""
    found = await _for_work(tx, workitem_uid, Permission.WORKITEM_PERFORM)
    changes = said.checked(body)
    given = transaction_uid or said.text(changes, said.TRANSACTION) or None
    if found.state in FINAL:
        raise WorkitemRefused("A workitem in its final state is not changed.", status_code=0xC310)
    if given != found.transaction_uid:
        raise WorkitemNotYours(WORDS[0xC301])
    await _write(tx, found, said.updated(found.attributes, changes))
    await _tell(tx, "workitem.updated", found)


async def change_state(
    tx: WriteTx, workitem_uid: str, body: bytes, now: datetime, transaction_uid: str | None = None
) -> int:
    """PS3.4 CC.2.1. Zero, or the status code of a warning. Raises NotFound, Forbidden and what refuses."""
    found = await _for_work(tx, workitem_uid, Permission.WORKITEM_PERFORM)
    asked = said.checked(body)
    request = REQUESTS.get(said.text(asked, said.STATE))
    if request is None:
        raise BadRequest("ProcedureStepState is IN PROGRESS, COMPLETED or CANCELED.")
    given = transaction_uid or said.text(asked, said.TRANSACTION) or None
    if given is not None and not _is_uid(given):
        raise BadRequest("The Transaction UID is a UID.")
    return await _step(tx, found, request, given, now)


async def request_cancellation(tx: WriteTx, workitem_uid: str, body: bytes, now: datetime) -> int:
    """PS3.4 CC.2.2: a scheduled one is canceled, of one in progress the performer is told. Zero, or a warning's code."""
    found = await get_workitem(tx, workitem_uid, for_update=True)
    await require(tx, tx.actor, Permission.WORKITEM_SCHEDULE, found.project_id)
    reason = said.checked(body) if body.strip() else {}
    return await _step(tx, found, "request-cancel", None, now, reason=reason)


async def _step(
    tx: WriteTx, found: Workitem, request: Request, given: str | None, now: datetime, *, reason: Json | None = None
) -> int:
    becomes = step(request, State(found.state), held=found.transaction_uid, given=given)
    if isinstance(becomes, int) and becomes >= 0xC000:
        if becomes == 0xC301:
            raise WorkitemNotYours(WORDS[becomes])
        raise WorkitemRefused(WORDS[becomes], status_code=becomes)
    if isinstance(becomes, int):
        return becomes
    if found.job_id is not None and request == "request-cancel":  # performed here, so that it can be stopped
        await cancel_job(tx, found.job_id)
        await _tell(tx, "workitem.cancel-requested", found)
        return 0
    if not isinstance(becomes, State):
        await _tell(tx, "workitem.cancel-requested", found, **_contact(reason))
        return 0
    kept = said.canceled_at(found.attributes, now, reason) if becomes == State.CANCELED else found.attributes
    if becomes in FINAL and request != "request-cancel" and (missing := unmet(becomes, kept)):
        raise WorkitemRefused(f"{WORDS[0xC304]}: {', '.join(missing)}.", status_code=0xC304)
    await _write(tx, found, kept, state=becomes, transaction_uid=given if becomes == State.IN_PROGRESS else None)
    if request == "request-cancel":
        await _tell(tx, "workitem.state-changed", found, state=State.IN_PROGRESS)  # CC.1.1: through IN PROGRESS
    await _tell(tx, "workitem.state-changed", found, state=becomes)
    return 0


async def _for_work(tx: WriteTx, workitem_uid: str, permission: Permission) -> Workitem:
    found = await get_workitem(tx, workitem_uid, for_update=True)
    await require(tx, tx.actor, permission, found.project_id)
    if found.prediction_id is not None:
        raise Conflict("This workitem is a prediction, which this server performs itself.")
    return found


async def _write(
    tx: WriteTx, found: Workitem, kept: Json, *, state: State | None = None, transaction_uid: str | None = None
) -> None:
    await tx.execute(
        "update workitems set attributes = $2, state = coalesce($3, state),"
        " transaction_uid = coalesce($4, transaction_uid), updated_at = now() where id = $1",
        found.id, _bounded(kept), state, transaction_uid,
    )  # fmt: skip


async def _tell(tx: WriteTx, event_type: str, found: Workitem, **data: Any) -> None:
    await emit(
        tx,
        Event(
            type=event_type,
            object_kind="workitem",
            object_id=found.workitem_uid,
            project_id=found.project_id,
            study_instance_uid=found.study_instance_uid,
            study_id=found.study_id,
            series_instance_uid=found.series_instance_uid,
            data=data,
        ),
    )


def _contact(reason: Json | None) -> dict[str, Any]:
    """Of a cancellation request only the coded reason goes into the feed: free text may name people."""
    codes = (reason or {}).get("0074100E", {}).get("Value") or []
    if not codes:
        return {}
    return {"reason_code": said.text(codes[0], "00080100"), "reason_scheme": said.text(codes[0], "00080102")}


def _bounded(kept: Json) -> Json:
    if len(msgspec.json.encode(kept)) > said.MAX_ATTRIBUTES_BYTES:
        raise TooLarge("The workitem is over the limit.", limit_bytes=said.MAX_ATTRIBUTES_BYTES)
    return kept


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and all(part.isascii() and part.isdigit() for part in text.split("."))
