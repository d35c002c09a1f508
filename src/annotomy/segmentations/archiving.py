"""What a reviewer approved is written into the archive as DICOM SEG, one instance for each approved version.

Version 1 has its SEG from the start (service.py). Edits do not: a viewer beside ours would list every stroke.
"""

import asyncio
from typing import ClassVar
from uuid import UUID

from annotomy.archive.store import Incoming, keep_derived, write_derived
from annotomy.archive.volume import load_source
from annotomy.events import Event, emit
from annotomy.jobs.handlers import HandlerSpec, JobContext
from annotomy.jobs.queue import Job
from annotomy.segmentations import query
from annotomy.segmentations.export import seg_of_version
from annotomy.services import Services


class ArchiveSegmentation(Job, frozen=True):
    """Write the DICOM SEG of a version into the archive."""

    kind: ClassVar[str] = "archive-segmentation"
    segmentation_id: UUID
    version: int


async def archive_segmentation(services: Services, job: ArchiveSegmentation, context: JobContext) -> None:
    """For the asker, whose rights may have gone since: raises NotFound then, or a VolumeProblem for a series that changed."""
    async with services.db.read(context.asker) as tx:
        row = await query.get_version(tx, job.segmentation_id, job.version)
        masks = await query.read_masks(tx, row)
    kept = None
    if row["sop_instance_uid"] is None:
        source = await load_source(services, context.asker, row["series_instance_uid"])
        seg = await asyncio.to_thread(seg_of_version, row, masks, source)
        kept = await keep_derived(services, Incoming("segmentation.dcm", data=seg))
    async with services.db.write(context.asker, unrestricted=True) as tx:
        if kept is not None:
            stored = await write_derived(tx, row["project_id"], row["study_id"], kept, owner_id=row["created_by"])
            await tx.execute(
                "update segmentation_versions set sop_instance_uid = $3 where segmentation_id = $1 and version = $2",
                row["id"], row["version"], stored.sop_instance_uid,
            )  # fmt: skip
            event = Event(
                type="segmentation.archived",
                object_kind="segmentation",
                object_id=str(row["id"]),
                project_id=row["project_id"],
                data={"version": row["version"], "sop_instance_uid": stored.sop_instance_uid},
            )
            await emit(tx, event)
        await context.finish(tx)


ARCHIVE = HandlerSpec(ArchiveSegmentation, archive_segmentation)
