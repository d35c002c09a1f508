"""A segmentation over its image in three orthogonal planes, as one PNG to look at.

Each plane is the one that holds most of the segmentation. Radiological convention: the patient's right is at the left of
axial and coronal planes, the nose points to the left in the sagittal one. All planes have one scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion

BACKGROUND = (10, 14, 18)
TEXT = (223, 230, 236)
DIMMED = (140, 155, 168)
FILL_ALPHA = 0.28
PANEL_PX = 460
"""Longest side of the largest panel."""
OVERSAMPLING = 2
"""Contours are drawn on a finer grid and brought down, which smooths their steps."""
GAP_PX, HEADER_PX, FOOTER_PX = 14, 64, 58
MARGIN_MM = 30.0
"""Around what is segmented, so that a small structure fills the picture and still has its surroundings."""
AIR_SHARE = 0.02
"""Below this share of the window it is dark: what holds only that is cut away."""

# Plane -> (axis that is looked along, axis to the right, axis down) in RAS, with the signs that the screen wants.
_PLANES = {
    "axial": (2, (0, -1), (1, -1)),
    "coronal": (1, (0, -1), (2, -1)),
    "sagittal": (0, (1, -1), (2, -1)),
}
# Letters at the left, right, top and bottom edge.
_LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One segment in the picture."""

    number: int
    label: str
    color: str
    volume_ml: float


def draw_overlay(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing_mm: Sequence[float],
    segments: Sequence[Shown],
    *,
    title: str,
    subtitle: str,
    path: Path,
) -> None:
    """`image` and `labels` have axes right-left, posterior-anterior, inferior-superior (RAS+), and one grid."""
    box = _box(image, labels, spacing_mm)
    image, labels = image[box], labels[box]
    low, high = _window(image)
    extents = {name: _extent_mm(image.shape, spacing_mm, name) for name in _PLANES}
    pixels_per_mm = PANEL_PX / max(max(extent) for extent in extents.values())
    panels = [_panel(name, image, labels, spacing_mm, segments, (low, high), pixels_per_mm) for name in _PLANES]
    width = sum(panel.width for panel in panels) + GAP_PX * (len(panels) + 1)
    height = max(panel.height for panel in panels) + HEADER_PX + FOOTER_PX
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    left = GAP_PX
    for panel in panels:
        sheet.paste(panel, (left, HEADER_PX + (height - HEADER_PX - FOOTER_PX - panel.height) // 2))
        left += panel.width + GAP_PX
    _annotate(sheet, segments, title, subtitle, pixels_per_mm)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _box(
    image: NDArray[np.float32], labels: NDArray[np.uint8], spacing_mm: Sequence[float]
) -> tuple[slice, slice, slice]:
    """What is worth showing: the segmentation and its surroundings, as far as there is anything but air."""
    low, high = _window(image)
    body, mask = image > low + AIR_SHARE * (high - low), labels > 0
    found: list[slice] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        seen, masked = np.flatnonzero(body.any(others)), np.flatnonzero(mask.any(others))
        margin = round(MARGIN_MM / spacing_mm[axis])
        first = max(min(seen[0], masked[0]) - 2, masked[0] - margin, 0)
        last = min(max(seen[-1], masked[-1]) + 2, masked[-1] + margin, image.shape[axis] - 1)
        found.append(slice(int(first), int(last) + 1))
    return found[0], found[1], found[2]


def _window(image: NDArray[np.float32]) -> tuple[float, float]:
    """From the darkest to the brightest but for rare outliers, among what is no background."""
    background = float(image.min())
    body = image[image > background]
    if body.size == 0:
        return background, background + 1.0
    return background, float(np.percentile(body, 99.7))


def _extent_mm(shape: tuple[int, ...], spacing_mm: Sequence[float], plane: str) -> tuple[float, float]:
    _, (across, _), (down, _) = _PLANES[plane]
    return shape[across] * spacing_mm[across], shape[down] * spacing_mm[down]


def _panel(
    plane: str,
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing_mm: Sequence[float],
    segments: Sequence[Shown],
    window: tuple[float, float],
    pixels_per_mm: float,
) -> Image.Image:
    along, across, down = _PLANES[plane]
    others = tuple(axis for axis in range(3) if axis != along)
    index = int((labels > 0).sum(axis=others).argmax())
    extent = _extent_mm(image.shape, spacing_mm, plane)
    size = (max(1, round(extent[0] * pixels_per_mm)), max(1, round(extent[1] * pixels_per_mm)))
    fine = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)

    values = _seen(image, along, index, across, down)
    grey = np.clip((values - window[0]) / (window[1] - window[0]), 0, 1) * 255
    canvas = np.asarray(_resized(grey, fine), np.float32)[..., None].repeat(3, axis=-1).clip(0, 255)
    plane_labels = _seen(labels, along, index, across, down)
    for segment in segments:
        mask: NDArray[np.bool_] = np.asarray(_resized((plane_labels == segment.number).astype(np.float32), fine)) > 0.5
        color = np.array(_rgb(segment.color), np.float32)
        canvas[mask] = (1 - FILL_ALPHA) * canvas[mask] + FILL_ALPHA * color
        outline = np.logical_xor(binary_dilation(mask, iterations=2), binary_erosion(mask, iterations=1))
        canvas[outline] = color
    panel = Image.fromarray(canvas.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    _letters(panel, plane)
    return panel


def _seen(
    volume: NDArray[np.generic], along: int, index: int, across: tuple[int, int], down: tuple[int, int]
) -> NDArray[np.float32]:
    """One plane with rows from top to bottom and columns from left to right of the screen."""
    plane = np.take(volume, index, axis=along).astype(np.float32)
    if across[0] < down[0]:  # numpy's first axis is the screen's vertical one
        plane = plane.T
    if down[1] < 0:
        plane = plane[::-1]
    return plane[:, ::-1] if across[1] < 0 else plane


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values, np.float32)).resize(size, Image.Resampling.BICUBIC)


def _letters(panel: Image.Image, plane: str) -> None:
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(15)
    left, right, top, bottom = _LETTERS[plane]
    places = (
        ((6, panel.height / 2), left, "lm"),
        ((panel.width - 6, panel.height / 2), right, "rm"),
        ((panel.width / 2, 5), top, "ma"),
        ((panel.width / 2, panel.height - 5), bottom, "md"),
    )
    for place, letter, anchor in places:
        draw.text(place, letter, fill=TEXT, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _annotate(sheet: Image.Image, segments: Sequence[Shown], title: str, subtitle: str, pixels_per_mm: float) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, 12), title, fill=TEXT, font=ImageFont.load_default(21))
    draw.text((GAP_PX, 38), subtitle, fill=DIMMED, font=ImageFont.load_default(14))
    font, middle = ImageFont.load_default(16), sheet.height - FOOTER_PX / 2
    left = float(GAP_PX)
    for segment in segments:
        draw.rounded_rectangle((left, middle - 8, left + 16, middle + 8), 3, fill=_rgb(segment.color))
        text = f"{segment.label}  {segment.volume_ml:.{2 if segment.volume_ml < 10 else 0}f} mL"
        draw.text((left + 24, middle), text, fill=TEXT, font=font, anchor="lm")
        left += 24 + draw.textlength(text, font=font) + 28
    bar_mm = 50 if 50 * pixels_per_mm < sheet.width / 6 else 20
    right, length = sheet.width - GAP_PX, bar_mm * pixels_per_mm
    draw.line((right - length, middle + 8, right, middle + 8), fill=TEXT, width=2)
    draw.text((right - length / 2, middle + 2), f"{bar_mm} mm", fill=TEXT, font=ImageFont.load_default(13), anchor="md")


def _rgb(color: str) -> tuple[int, int, int]:
    value = int(color.removeprefix("#"), 16)
    return value >> 16 & 255, value >> 8 & 255, value & 255
