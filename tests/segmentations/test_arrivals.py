"""What arrives over STOW-RS and C-STORE is taken over by a job of the transaction that stored it."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from annotomy.archive.arrivals import TAKEN_CLASSES, TakeStored
from annotomy.archive.store import Incoming, commit, keep_derived
from annotomy.db.identifiers import new_id
from annotomy.jobs.handlers import JobContext, Reject, Retry
from annotomy.jobs.queue import MAX_ATTEMPTS
from annotomy.uploads.derived import taking
from annotomy.worker import TAKERS
from tests.segmentations.placed_series import Placed, file_bytes, some_masks
from tests.segmentations.test_interchange import created, started
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs


def test_every_class_that_is_taken_has_its_taker() -> None:
    assert TAKERS.keys() == TAKEN_CLASSES


async def test_a_seg_of_c_store_becomes_a_segmentation_once(application: Application) -> None:
    placed = Placed()
    project, client = await started(application, placed)
    masks = some_masks(placed.shape_kji)
    own = (await client.get(f"/{await created(application, project, placed, masks)}/export")).content
    foreign: Any = dcmread(io.BytesIO(own))
    foreign.SOPInstanceUID = foreign.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    foreign.SeriesInstanceUID = generate_uid()
    kept = [await keep_derived(application.services, Incoming(".", data=d)) for d in (own, file_bytes([foreign])[0])]
    for _ in range(2):
        await commit(application.services, project.admin, project.id, kept)
    await run_queued_jobs(application.services)
    listed = (await client.get("")).json()
    assert listed["total"] == 2, "our own is known, the other is taken once"
    found = await client.masks(listed["items"][0]["id"])
    assert all(np.array_equal(found[number], masks[number]) for number in masks)
    async with application.services.db.read(project.admin) as tx:
        assert await tx.fetchval("select count(*) from jobs where kind = 'take-stored' and state = 'succeeded'") == 1


async def test_what_cannot_be_taken_waits_for_its_images_and_then_says_why(application: Application) -> None:
    project, _ = await started(application, Placed())
    job = TakeStored(project.id, next(iter(TAKEN_CLASSES)), "1.2.3")
    handler = taking(TAKERS)
    for attempt in range(1, MAX_ATTEMPTS - 1):
        with pytest.raises(Retry):
            await handler.run(
                application.services, job, JobContext(application.services, new_id(), project.admin, attempt)
            )
    with pytest.raises(Reject) as rejected:
        context = JobContext(application.services, new_id(), project.admin, MAX_ATTEMPTS - 1)
        await handler.run(application.services, job, context)
    assert rejected.value.problem.status == 404
