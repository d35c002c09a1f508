"""Objects of an upload that say something of other images (SEG, SR) go to the feature that shows them.

They are in the archive before, and stay there whatever becomes of this: a failure is a word on the file, and sending the
file again tries again. Which feature takes what is registered in `worker.py`, since features above uploads may not be
imported here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog

from annotomy.actor import Actor
from annotomy.archive.store import StoreOutcome
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.errors import Problem
from annotomy.services import Services

log = structlog.get_logger(__name__)

Taker = Callable[[Services, Actor, UUID, str], Awaitable[dict[str, Any]]]
"""Takes the stored instance of this SOP Instance UID into the project; taking it twice makes nothing twice. Answers what
was made, as identifiers and numbers. Raises a Problem."""
Takers = Mapping[str, Taker]
"""By SOP Class UID."""


class NotTakenOver(Problem):
    """The object is stored, but cannot be read as a segmentation or report. The detail says why as far as it is known."""

    slug = "not-taken-over"
    title = "Stored, but not imported"
    status = 422


@dataclass(frozen=True, slots=True)
class Taken:
    """`outcomes` in their order; `made` by SOP Instance UID."""

    outcomes: list[StoreOutcome]
    made: dict[str, dict[str, Any]]


async def take_derived(
    services: Services, actor: Actor, project_id: UUID, outcomes: list[StoreOutcome], takers: Takers
) -> Taken:
    """After everything of the upload is stored, so that the images are there whatever their order was."""
    told: list[StoreOutcome] = []
    made: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        taker = takers.get(outcome.sop_class_uid) if outcome.state in ("stored", "already") else None
        if taker is not None:
            try:
                made[outcome.sop_instance_uid] = await taker(services, actor, project_id, outcome.sop_instance_uid)
            except Problem as problem:
                outcome = replace(outcome, problem=problem)
            except UNREADABLE as error:
                log.warning("upload.not_taken_over", sop_instance_uid=outcome.sop_instance_uid, exc_info=True)
                detail = f"The object is stored, but cannot be read ({type(error).__name__})."
                outcome = replace(outcome, problem=NotTakenOver(detail))
        told.append(outcome)
    return Taken(told, made)
