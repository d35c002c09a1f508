"""The `head` model: a coarse mask of the brain in a whole-head MR of any contrast.

The network works at 3 mm on a field of 192 x 240 x 192 mm. The first pass looks at the whole volume, the second at the
field around the brain that the first one found. The network has seven classes; what it learned within the time is the
brain as a whole (training/head/README.md), so the classes within the brain are summed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from annotomy.inference.runners.grid import Grid, extent_mm, grid_around, grid_at, labels_in_volume, to_grid
from annotomy.inference.runners.onnx import OnnxRunner, entropy_bits, largest_component, require_mr_of_the_head
from annotomy.ports import ModelOutput, ModelRefusal, Volume

SPACING_MM = 3.0
FIELD = (64, 80, 64)
# Beyond 400 mm along any axis it is no head.
_EXTENT_LIMIT_MM = 400.0
# Below this a whole brain does not fit (a newborn's is about 100 mm long).
_EXTENT_LEAST_MM = 90.0
# Brains of children and adults, with room for the model's error and for crops that cut some brain.
_BRAIN_CM3 = (500.0, 2300.0)
# Where it lies in the brain's box, mean of the 20 label maps: from the middle in widths, from behind and from the top in
# lengths of the brain (standard deviation 0.01, 0.03, 0.03, so about 5 mm).
_HIPPOCAMPUS_IN_BRAIN = (0.177, 0.485, 0.485)
# Mean entropy within the brain: 0.37 on the MNI template, 0.44 on a real head with a tumour.
_ENTROPY_LIMIT_BITS = 0.6
# Tissue resembles its neighbours at 3 mm; noise and evenly filled phantoms do not.
_STRUCTURE_LEAST = 0.3
# Darker than this share of the brightness range is air.
_DARK_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class HeadMap:
    """What the network says on its own grid."""

    grid: Grid
    probabilities: NDArray[np.float32]
    labels: NDArray[np.uint8]
    flags: tuple[str, ...]
    quality: dict[str, float]

    def expected_hippocampus(self, side: Literal["left", "right"]) -> NDArray[np.float64]:
        """Where the brain's box lets expect the middle of a hippocampus, in RAS millimetres."""
        places = np.argwhere(self.labels > 0)
        low, high = places.min(0), places.max(0)
        width, length = high[0] - low[0], high[1] - low[1]
        across, forward, down = _HIPPOCAMPUS_IN_BRAIN
        middle = np.array([
            (low[0] + high[0]) / 2 + (-across if side == "left" else across) * width,
            low[1] + forward * length,
            high[2] - down * length,
        ])  # fmt: skip
        return self.grid.origin_ras_mm + middle * self.grid.spacing_mm


class HeadRunner(OnnxRunner):
    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        found = self.map(volume, lambda share: report(0.8 * share))
        labels = labels_in_volume(volume, found.grid, found.probabilities)
        report(1.0)
        return ModelOutput(labels, found.flags, found.quality)

    def map(self, volume: Volume, report: Callable[[float], None]) -> HeadMap:
        """Raises ModelRefusal for what is no head."""
        require_mr_of_the_head(volume)
        extent = extent_mm(volume)
        if (extent > _EXTENT_LIMIT_MM).any():
            raise ModelRefusal("volume-too-large", "The volume is longer than 400 mm; the model reads one head.")
        if (extent < _EXTENT_LEAST_MM).any():
            raise ModelRefusal("anatomy-not-recognised", "The volume is too small to hold a whole head.")
        report(0.0)
        whole = grid_around(volume, SPACING_MM)
        coarse = to_grid(volume, whole)
        report(0.3)
        first = self._infer(coarse)
        report(0.6)
        brain = largest_component(first[0] < 0.5)
        if brain.sum() * SPACING_MM**3 / 1000 < _BRAIN_CM3[0] / 2:
            raise ModelRefusal("anatomy-not-recognised", "No brain was found in the volume.")
        places = np.argwhere(brain)
        middle = np.round((places.min(0) + places.max(0)) / 2)
        grid = grid_at(whole.origin_ras_mm + middle * SPACING_MM, SPACING_MM, FIELD)
        field = _window(coarse, middle)
        second = self._infer(field)
        report(0.95)
        return _judged(grid, second, whole, structure_of(field, second[1] > 0.5))

    def _infer(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        top = np.quantile(values, 0.995)
        clipped = np.minimum(values, top)
        scaled = (clipped - clipped.mean()) / (clipped.std() + 1e-6)
        padding = [(0, -n % 8) for n in values.shape]
        image = np.pad(scaled, padding, constant_values=float(scaled.min())).astype(np.float32)
        background = self.probabilities(image[None, None])[0, 0]
        found = np.stack([background, 1 - background])
        return found[:, : values.shape[0], : values.shape[1], : values.shape[2]]


def _window(values: NDArray[np.float32], middle: NDArray[np.float64]) -> NDArray[np.float32]:
    """The field around a voxel, filled with the darkest value where the volume ends."""
    out = np.full(FIELD, values.min(), np.float32)
    start = np.ceil(middle - (np.array(FIELD) - 1) / 2).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + FIELD, values.shape)
    source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
    out[target] = values[source]
    return out


def structure_of(values: NDArray[np.float32], brain: NDArray[np.bool_]) -> float:
    """Correlation between neighbouring voxels inside the brain: tissue is high, noise and phantoms are near 0."""
    low, top = float(values.min()), float(np.quantile(values, 0.995))
    inside = binary_erosion(brain & (values > low + _DARK_SHARE * (top - low)), border_value=0)
    found: list[float] = []
    for axis in range(3):
        size = values.shape[axis]
        first, second = (np.take(inside, np.arange(n, size - 1 + n), axis) for n in (0, 1))
        pairs = first & second
        if pairs.sum() < 1000:
            return 0.0
        a, b = (np.take(values, np.arange(n, size - 1 + n), axis)[pairs] for n in (0, 1))
        if a.std() == 0 or b.std() == 0:
            return 0.0
        found.append(float(np.corrcoef(a, b)[0, 1]))
    return min(found)


def _judged(grid: Grid, probabilities: NDArray[np.float32], whole: Grid, structure: float) -> HeadMap:
    voxel_cm3 = SPACING_MM**3 / 1000
    brain = largest_component(probabilities[1] > 0.5)
    entropy = entropy_bits(probabilities, brain)
    probabilities = np.stack([1 - probabilities[1] * brain, probabilities[1] * brain])
    quality = {"brain_cm3": float(brain.sum() * voxel_cm3), "entropy_bits": entropy, "structure": structure}
    if not _BRAIN_CM3[0] <= quality["brain_cm3"] <= _BRAIN_CM3[1]:
        raise ModelRefusal(
            "anatomy-not-recognised", f"What was found has {quality['brain_cm3']:.0f} cm3; no brain has."
        )
    if entropy > _ENTROPY_LIMIT_BITS or structure < _STRUCTURE_LEAST:
        raise ModelRefusal("anatomy-not-recognised", "The volume does not look like a head.")
    flags = ["coarse-mask"]
    places = np.argwhere(brain)
    world = grid.origin_ras_mm + np.stack([places.min(0), places.max(0)]) * SPACING_MM
    within = whole.index_of(world)
    if (within[0] < 1).any() or (within[1] > np.array(whole.shape) - 2).any():
        flags.append("brain-touches-edge")
    return HeadMap(grid, probabilities, brain.astype(np.uint8), tuple(flags), quality)
