"""Stored objects that say something of other images (SEG, RTSTRUCT, SR) go to the feature that shows them.

They are in the archive before, and stay there whatever becomes of this: of an upload, a failure is a word on the file, and
sending the file again tries again; of STOW-RS and C-STORE, it is the end of a job. Which feature takes what is registered in `worker.py`, since features above uploads may not be
imported here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog

from annotomy.actor import Actor
from annotomy.archive.arrivals import TakeStored
from annotomy.archive.store import StoreOutcome
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.errors import Problem
from annotomy.jobs.handlers import HandlerSpec, JobContext, Reject, Retry
from annotomy.jobs.queue import MAX_ATTEMPTS
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


def taking(takers: Takers) -> HandlerSpec:
    """The handler of what came over STOW-RS and C-STORE."""

    async def take(services: Services, job: TakeStored, context: JobContext) -> None:
        """The images may be still on their way, in whatever order they are sent: so every refusal is tried again."""
        try:
            await takers[job.sop_class_uid](services, context.asker, job.project_id, job.sop_instance_uid)
        except Problem as problem:
            if context.attempt < MAX_ATTEMPTS - 1:
                raise Retry from problem
            raise Reject(problem) from problem
        except UNREADABLE as error:
            log.warning("archive.not_taken_over", sop_instance_uid=job.sop_instance_uid, exc_info=True)
            raise Reject(NotTakenOver(f"The object cannot be read ({type(error).__name__}).")) from error
        async with services.db.write(context.asker) as tx:
            await context.finish(tx)

    return HandlerSpec(TakeStored, take)
