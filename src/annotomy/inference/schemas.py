"""Shapes of models and predictions on the wire."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

PredictionState = Literal["queued", "running", "succeeded", "failed", "cancelled", "refused"]

MAX_BATCH = 500
"""Series of one batch request: they are enqueued in one transaction, which should stay well below a second or two."""


class Code(msgspec.Struct, frozen=True):
    value: str
    scheme: str
    meaning: str


class ModelLabel(msgspec.Struct, frozen=True):
    number: int
    name: str
    code: Code
    color: str


class Model(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    title: str
    description: str
    """The intended use."""
    modalities: list[str]
    labels: list[ModelLabel]
    licence: str
    details: dict[str, Any]


class NewPrediction(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str | None = None
    """The installed version when left out."""
    project_id: UUID
    series_instance_uid: str
    parameters: dict[str, Any] = {}


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str | None = None
    project_id: UUID
    series_instance_uids: list[str]
    parameters: dict[str, Any] = {}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    job_id: UUID
    model: str
    model_version: str
    project_id: UUID
    series_instance_uid: str
    parameters: dict[str, Any]
    state: PredictionState
    progress: float
    proposal_id: UUID | None
    """The segmentation while it waits for a person's decision."""
    segmentation_id: UUID | None
    problem: dict[str, Any] | None
    flags: list[str]
    """The model's doubts about its own result, as stable slugs."""
    quality: dict[str, float]
    input_digest: str | None
    """BLAKE3 over the voxels and the geometry that the model was given."""
    asked_by: UUID
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """Either a prediction (`id`, `job_id`, `state`) or the problem that kept this series out of the batch."""

    series_instance_uid: str
    id: UUID | None = None
    job_id: UUID | None = None
    state: PredictionState | None = None
    problem: dict[str, Any] | None = None


class Batch(msgspec.Struct, frozen=True):
    items: list[BatchItem]
