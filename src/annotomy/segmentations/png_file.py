"""Masks as PNG: a ZIP with one picture for each slice, whose grey value is the segment's number, and `segments.json`.

Pictures know no geometry: `segments.json` tells it together with the SOP Instance UID of each slice. Segments that
overlap are in folders `layer-1/`, `layer-2/`. A lone PNG is a mask of a series of one slice.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from annotomy.segmentations.interchange import MAX_FILE_BYTES, FileSegment, FormatError, LabelGrid

MEDIA_TYPE = "application/zip"
SUFFIX = ".png.zip"
MAX_PICTURES = 8192
MAX_SIDE = 16384
"""Pixels of one side."""
DESCRIPTION = "segments.json"


def write_pngs(grid: LabelGrid, sop_instance_uids: Sequence[str]) -> bytes:
    """`sop_instance_uids` of the slices, as far as they are known."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        names: list[list[str]] = []
        for n, layer in enumerate(grid.layers, start=1):
            folder = "" if len(grid.layers) == 1 else f"layer-{n}/"
            names.append([f"{folder}slice-{k + 1:04}.png" for k in range(len(layer))])
            for name, pixels in zip(names[-1], layer, strict=True):
                archive.writestr(_entry(name), _png(pixels))
        told = {
            "shape_kji": list(grid.layers[0].shape),
            "affine_lps": [float(v) for v in grid.affine_lps.flat],
            "layers": names,
            "sop_instance_uids": list(sop_instance_uids),
            "segments": [
                {
                    "segment_number": s.number,
                    "label": s.label,
                    "code": dict(zip(("value", "scheme", "meaning"), s.code, strict=True)),
                    "category": dict(zip(("value", "scheme", "meaning"), s.category, strict=True)),
                    "color": s.color,
                }
                for s in grid.segments
            ],
        }
        archive.writestr(_entry(DESCRIPTION), json.dumps(told, ensure_ascii=False, indent=1))
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    """Without the time of day, so that the same masks make the same bytes."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _png(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def read_pngs(data: bytes, affine_lps: NDArray[np.float64]) -> LabelGrid:
    """`affine_lps` is the series' own grid, for pictures that come without `segments.json`. Raises FormatError."""
    if data.startswith(b"\x89PNG"):
        return LabelGrid((_pixels(data)[None],), affine_lps)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive, affine_lps)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError) as error:
        raise FormatError("The ZIP of PNG slices cannot be read.") from error


def _read_archive(archive: zipfile.ZipFile, affine_lps: NDArray[np.float64]) -> LabelGrid:
    entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
    pictures = sorted(name for name in entries if name.lower().endswith(".png"))
    if not pictures or len(pictures) > MAX_PICTURES:
        raise FormatError("The ZIP holds no PNG, or more than are taken in.")
    if sum(entry.file_size for entry in entries.values()) > MAX_FILE_BYTES:
        raise FormatError("The ZIP is larger than is taken in.")
    if DESCRIPTION not in entries:
        return LabelGrid((_layer(archive, pictures),), affine_lps)
    try:
        told = json.loads(archive.read(DESCRIPTION))
        layers = tuple(_layer(archive, [str(name) for name in names]) for names in told["layers"])
        affine = np.array(told["affine_lps"], np.float64).reshape(4, 4)
        segments = tuple(
            FileSegment(
                int(one["segment_number"]),
                str(one["label"]),
                _coded(one["code"]),
                _coded(one["category"]),
                str(one["color"]),
            )
            for one in told["segments"]
        )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError("segments.json is not as this server writes it.") from error
    if not layers:
        raise FormatError("segments.json names no layer.")
    return LabelGrid(layers, affine, segments)


def _coded(value: Any) -> tuple[str, str, str]:
    return str(value["value"]), str(value["scheme"]), str(value["meaning"])


def _layer(archive: zipfile.ZipFile, names: list[str]) -> NDArray[Any]:
    slices = [_pixels(archive.read(name)) for name in names]
    if not slices or len({one.shape for one in slices}) > 1:
        raise FormatError("The PNG slices differ in size.")
    return np.stack(slices)


def _pixels(data: bytes) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > MAX_SIDE:
                raise FormatError("A PNG is larger than is taken in.")
            if picture.mode not in ("1", "L", "P", "I;16", "I"):
                raise FormatError("A PNG of masks is grey or indexed: its values are segment numbers, not colours.")
            return np.asarray(picture).astype(np.uint8 if picture.mode == "1" else np.uint16)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError("A PNG cannot be read.") from error
