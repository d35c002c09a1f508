"""The three plug-in protocols and the values that cross them. Two real implementations each, or it is not a port."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


# ---------------------------------------------------------------------------------------------------------- BlobStore
@dataclass(frozen=True, slots=True)
class BlobStat:
    address: str
    size: int


class BlobStore(Protocol):
    """Immutable objects under the BLAKE3 (hex, 64 characters) of their content. A returned put is durable."""

    async def put(self, data: bytes) -> BlobStat:
        """Store bytes from memory. Storing the same content again is no error."""
        ...

    async def put_file(self, path: Path) -> BlobStat:
        """Store a finished file. It may be moved: the caller must not touch `path` afterwards."""
        ...

    async def read(self, address: str, start: int = 0, length: int | None = None) -> bytes:
        """A range, in memory. Raises KeyError when there is no such blob."""
        ...

    def stream(self, address: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A range in pieces of about 1 MiB."""
        ...

    async def stat(self, address: str) -> BlobStat | None: ...

    async def delete(self, address: str) -> None: ...


# -------------------------------------------------------------------------------------------------------- ModelRunner
@dataclass(frozen=True, slots=True)
class Volume:
    """A scalar volume in patient space.

    `values` is float32 in modality units (HU for CT), shape (k, j, i): slice, row, column.
    `affine_lps` (4x4) maps homogeneous voxel centres (i, j, k, 1) to LPS millimetres.
    """

    values: NDArray[np.float32]
    affine_lps: NDArray[np.float64]
    modality: str = ""
    body_part: str = ""


@dataclass(frozen=True, slots=True)
class ModelLabel:
    """One output class. `code` is (value, scheme, meaning), as SCT / DCM codes in DICOM SEG."""

    number: int
    name: str
    code: tuple[str, str, str]
    color: str


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is for; it runs only on what fits."""

    name: str
    version: str
    title: str
    modalities: tuple[str, ...]
    labels: tuple[ModelLabel, ...]
    intended_use: str
    licence: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """`labels` is uint8 in the geometry and shape of the input volume; 0 is background.

    `flags` name doubts (out of distribution, implausible volume) in stable slugs; a proposal shows them.
    `quality` holds numbers that later monitoring compares (entropy, volumes).
    """

    labels: NDArray[np.uint8]
    flags: tuple[str, ...] = ()
    quality: dict[str, float] = field(default_factory=dict[str, float])


class ModelRefusal(Exception):
    """The volume is nothing that the model was made for. The text is shown to the asker; `slug` is stable."""

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail


class ModelRunner(Protocol):
    """Runs one model. Given arrays and geometry only, never the database. Called in a worker thread or process."""

    def describe(self) -> ModelCard: ...

    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        """Raises ModelRefusal. `report` takes the share done, 0 to 1, and raises to cancel."""
        ...
