"""What the audit has of DIMSE reads, as it has of DICOMweb's: queries, retrievals before their first instance, refusals.

The records are those of QIDO-RS and WADO-RS (ops/audit_requests.py) under the same actions, with the peer as the actor.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from annotomy.archive.retrieve import InstanceLocation
from annotomy.audit import Entry
from annotomy.dimse.command import Field
from annotomy.dimse.identifiers import UNIQUE_KEYS, Identifier
from annotomy.dimse.peers import Peer
from annotomy.errors import Problem
from annotomy.ops.audit_queue import AuditQueue

SEARCHED, RETRIEVED = "study.searched", "study.retrieved"
_ACTIONS: dict[int, str] = {
    Field.C_FIND_RQ: SEARCHED,
    Field.C_GET_RQ: RETRIEVED,
    Field.C_MOVE_RQ: RETRIEVED,
}
_OUTCOMES = {403: "denied", 404: "not-found"}


async def note_query(queue: AuditQueue, peer: Peer, identifier: Identifier) -> None:
    """Of whom was asked, only a UID says; names and patient identifiers do not come here."""
    kind, uid = _named(identifier)
    study = uid if kind == "study" else None
    detail = {"service": "C-FIND", "level": identifier.level}
    await queue.note(
        peer.actor,
        Entry(
            action=SEARCHED,
            object_kind=kind,
            object_id=uid,
            study_instance_uid=study,
            project_id=peer.actor.sole_project_id,
            detail=detail,
        ),
    )


async def note_retrieval(
    queue: AuditQueue,
    peer: Peer,
    identifier: Identifier,
    locations: Sequence[InstanceLocation],
    service: str,
    destination: str,
) -> None:
    """One durable record for each study; raises what kept it from being written: then nothing is sent."""
    detail: dict[str, Any] = {"service": service, "level": identifier.level, "destination": destination}
    if not locations:
        kind, uid = _named(identifier)
        await queue.note(
            peer.actor,
            Entry(
                action=RETRIEVED,
                object_kind=kind,
                object_id=uid,
                project_id=peer.actor.sole_project_id,
                outcome="not-found",
                detail=detail,
            ),
        )
    for study, instances in Counter(at.study_instance_uid for at in locations).items():
        entry = Entry(
            action=RETRIEVED,
            object_kind="study",
            object_id=study,
            study_instance_uid=study,
            project_id=peer.actor.sole_project_id,
            detail=detail | {"instances": instances},
        )
        await queue.note_durably(peer.actor, entry)


async def note_refusal(queue: AuditQueue, peer: Peer, command_field: int, problem: Problem) -> None:
    """What would be 403 or 404 over HTTP; a request of a wrong form is none."""
    outcome = _OUTCOMES.get(problem.status)
    action = _ACTIONS.get(command_field)
    if outcome is not None and action is not None:
        await queue.note(
            peer.actor,
            Entry(
                action=action,
                object_kind="list",
                object_id="",
                project_id=peer.actor.sole_project_id,
                outcome=outcome,
                detail={"service": Field(command_field).name.removesuffix("_RQ").replace("_", "-")},
            ),
        )


def _named(identifier: Identifier) -> tuple[str, str]:
    """The finest series or study that the identifier names alone, as the audit of requests names one."""
    for kind, keyword in (("series", UNIQUE_KEYS["SERIES"]), ("study", UNIQUE_KEYS["STUDY"])):
        uid = identifier.keys.get(keyword, "")
        if uid and not set(uid) & set("*?\\"):
            return kind, uid
    return "list", ""
