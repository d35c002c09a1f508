"""Running a prediction: load the series, run the model off the event loop, store its mask as a proposal.

Nothing of a prediction is visible before the one transaction that writes the segmentation, the prediction's outcome and
the job's end together; a taken-over attempt is fenced out of it. Dying anywhere before costs only time.
"""

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
from blake3 import blake3

from annotomy.archive.volume import LoadedVolume, VolumeProblem, load_volume
from annotomy.db.engine import WriteTx
from annotomy.errors import Problem
from annotomy.events import emit
from annotomy.inference.errors import ModelRefused
from annotomy.inference.predict import RunPrediction, card_of, prediction_event, require_series
from annotomy.jobs.handlers import Cancelled, HandlerSpec, JobContext
from annotomy.ports import ModelCard, ModelOutput, ModelRefusal, ModelRunner, Volume
from annotomy.projects.access import Permission, require
from annotomy.segmentations.segment import NewSegment
from annotomy.segmentations.service import NewSegmentation, create_segmentation
from annotomy.services import Services

WATCH_S = 0.5
"""How often progress is written and a cancel looked for while the model runs."""
LOADED, PREDICTED = 0.1, 0.9
"""Shares of the progress: the series is loaded, the model has run; the rest is storing."""


async def run_prediction(services: Services, job: RunPrediction, context: JobContext) -> None:
    async with services.db.read(context.asker, unrestricted=True) as tx:
        row = await tx.fetchrow(
            "select id, model, model_version, project_id, series_instance_uid, outcome from predictions where id = $1",
            job.prediction_id,
        )
    assert row is not None, "a job names a prediction of its own transaction"
    assert row["outcome"] is None, "an outcome ends the job in the same transaction"
    try:
        await _run(services, row, context)
    except (ModelRefused, VolumeProblem) as problem:
        await _book_refusal(services, row, context, problem)
    except Problem as problem:
        await _book_failure(services, row, context, problem)


async def _run(services: Services, row: Any, context: JobContext) -> None:
    """Raises ModelRefused and VolumeProblem for what no model of ours can do, other problems for what went wrong."""
    card = card_of(services.runners, row["model"], row["model_version"])
    async with services.db.read(context.asker) as tx:  # rights may have gone since it was asked
        await require(tx, context.asker, Permission.MODEL_RUN, row["project_id"])
        await require_series(tx, row["project_id"], row["series_instance_uid"])
    await context.report(0.0, "loading")
    loaded = await load_volume(services, context.asker, row["series_instance_uid"])
    digest = await asyncio.to_thread(input_digest, loaded.volume)
    await _stop_if_cancelled(context)
    await context.report(LOADED, "running")
    output = await _watched(services.runners[card.name], loaded.volume, context)
    await _stop_if_cancelled(context)
    await context.report(PREDICTED, "storing")
    await _store(services, row, context, card, loaded, output, digest)


def input_digest(volume: Volume) -> bytes:
    """BLAKE3 over everything that the model is given: equal digests and an equal model version mean equal voxels."""
    header = f"{volume.values.shape} {volume.modality} {volume.body_part}".encode()
    hashed = blake3(header)
    hashed.update(np.ascontiguousarray(volume.affine_lps, "<f8").tobytes())
    hashed.update(np.ascontiguousarray(volume.values, "<f4").data.cast("B"))
    return hashed.digest()


async def _watched(runner: ModelRunner, volume: Volume, context: JobContext) -> ModelOutput:
    """Runs the model in a thread, writes its progress, and stops it when the job is cancelled or taken over."""
    progress = _Progress()
    running = asyncio.create_task(asyncio.to_thread(_predict, runner, volume, progress.tell))
    try:
        while not (await asyncio.wait([running], timeout=WATCH_S))[0]:
            await _stop_if_cancelled(context)
            await context.report(LOADED + (PREDICTED - LOADED) * progress.share, "running")
        return running.result()
    finally:
        # Whatever ended the watch, the thread must not go on: its report raises, which ends the model.
        progress.stop.set()
        with contextlib.suppress(_Stopped, Problem, ModelRefusal):
            await asyncio.shield(running)


class _Stopped(Exception):
    """Raised out of a running model's report."""


class _Progress:
    """Between the event loop and the thread of the model."""

    def __init__(self) -> None:
        self.share = 0.0
        self.stop = threading.Event()

    def tell(self, share: float) -> None:
        self.share = share
        if self.stop.is_set():
            raise _Stopped


def _predict(runner: ModelRunner, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
    try:
        return runner.predict(volume, report)
    except ModelRefusal as refusal:
        raise ModelRefused(refusal.detail, reason=refusal.slug) from refusal


async def _stop_if_cancelled(context: JobContext) -> None:
    if await context.cancelled():
        raise Cancelled


async def _store(
    services: Services,
    row: Any,
    context: JobContext,
    card: ModelCard,
    loaded: LoadedVolume,
    output: ModelOutput,
    digest: bytes,
) -> None:
    quality = {name: value for name, value in output.quality.items() if math.isfinite(value)}  # JSON has no NaN

    async def book(tx: WriteTx, segmentation_id: UUID) -> None:
        await tx.execute(
            "update predictions set outcome = 'succeeded', segmentation_id = $2, flags = $3, quality = $4, input_digest = $5"
            " where id = $1",
            row["id"], segmentation_id, list(output.flags), quality, digest,
        )  # fmt: skip
        data = {"model": card.name, "segmentation_id": str(segmentation_id), "flags": list(output.flags)}
        await emit(tx, prediction_event("prediction.succeeded", row["id"], row["project_id"], **data))
        await context.finish(tx)

    segments = [
        NewSegment(label.number, label.name, label.code, label.color, algorithm=(card.name, card.version))
        for label in card.labels
    ]
    new = NewSegmentation(
        project_id=row["project_id"],
        source=loaded.source,
        segments=segments,
        labels=output.labels,
        label=card.title,
        state="proposal",
        prediction_id=row["id"],
        why=f"{card.name} {card.version}",
    )
    await create_segmentation(services, context.asker, new, within=book)


async def _book_refusal(services: Services, row: Any, context: JobContext, problem: Problem) -> None:
    """The job did what it could: a refusal is an answer, not a failure."""
    async with services.db.write(context.asker, unrestricted=True) as tx:
        await tx.execute(
            "update predictions set outcome = 'refused', problem = $2 where id = $1", row["id"], problem.to_json()
        )
        reason = problem.extras.get("reason", problem.slug)
        event = prediction_event("prediction.refused", row["id"], row["project_id"], model=row["model"], reason=reason)
        await emit(tx, event)
        await context.finish(tx)


async def _book_failure(services: Services, row: Any, context: JobContext, problem: Problem) -> None:
    async with services.db.write(context.asker, unrestricted=True) as tx:
        event = prediction_event(
            "prediction.failed", row["id"], row["project_id"], model=row["model"], reason=problem.slug
        )
        await emit(tx, event)
        await context.fail(tx, problem)


RUN_PREDICTION = HandlerSpec(RunPrediction, run_prediction)
