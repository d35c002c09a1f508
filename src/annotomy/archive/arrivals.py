"""Objects that say something of other images (SEG, RTSTRUCT, SR) and came over STOW-RS or C-STORE: a job takes each over.

The job is a row of the transaction that stores the object, so that none is forgotten. Which feature takes what is
registered in `worker.py`; uploads take theirs themselves, since they tell it on each file.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from annotomy.db.engine import WriteTx
from annotomy.jobs.queue import Job, enqueue

if TYPE_CHECKING:
    from annotomy.archive.store import StoreOutcome

TAKEN_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
        "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    }
)
"""SOP classes that a feature takes over."""


class TakeStored(Job, frozen=True):
    """Make of the stored object what a feature makes of it, in the project that it was stored to."""

    kind: ClassVar[str] = "take-stored"
    project_id: UUID
    sop_class_uid: str
    sop_instance_uid: str


async def enqueue_taking(tx: WriteTx, project_id: UUID, outcomes: "Iterable[StoreOutcome]") -> None:
    """For what was stored just now; what was there already has had its job."""
    for outcome in outcomes:
        if outcome.state == "stored" and outcome.sop_class_uid in TAKEN_CLASSES:
            job = TakeStored(project_id, outcome.sop_class_uid, outcome.sop_instance_uid)
            await enqueue(tx, job, project_id=project_id)
