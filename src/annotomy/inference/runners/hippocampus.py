"""The `hippocampus` model: anterior and posterior hippocampus on MR, from a crop or from a whole head.

The network was trained on crops of about 36 x 50 x 36 mm around one hippocampus. Given a whole head, the `head` model's
brain says where to expect both hippocampi; the crop then moves until what it finds lies in its middle.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotomy.inference.runners.grid import Grid, extent_mm, grid_around, grid_at, labels_in_volume, to_grid
from annotomy.inference.runners.head import HeadRunner
from annotomy.inference.runners.onnx import OnnxRunner, entropy_bits, largest_component, require_mr_of_the_head
from annotomy.inference.runners.typical import Typical, measures_of
from annotomy.ports import ModelOutput, ModelRefusal, Volume

SPACING_MM = 1.0
# The network's plane, right-left x posterior-anterior.
PLANE = (48, 64)
# What the model cuts out of a whole head: the mean shape of the crops that it was trained on.
CROP = (36, 50, 36)
# A crop is an input no longer than this along any axis; a whole head is at least 90 mm.
_CROP_EXTENT_MM = 70.0
# The validation cases have 2.4 to 3.9; atrophy and large heads need room on both sides.
_VOLUME_CM3 = (1.0, 6.0)
# Mean entropy within the hippocampus: the 30 validation cases have 0.13 to 0.20.
_ENTROPY_LIMIT_BITS = 0.3
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
# How often the crop moves towards what it found in a whole head, and how near to its middle is good enough.
_MOVES = 4
_SETTLED_MM = 2.0


class HippocampusRunner(OnnxRunner):
    def __init__(self, folder: Path, head: HeadRunner, threads: int = 1) -> None:
        super().__init__(folder, threads)
        self._head = head
        self._typical = Typical.read(folder / "typical.json")

    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        require_mr_of_the_head(volume)
        report(0.0)
        if (extent_mm(volume) <= _CROP_EXTENT_MM).all():
            return self._of_crop(volume, report)
        return self._of_head(volume, report)

    def _of_crop(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        grid = grid_around(volume, SPACING_MM)
        if grid.shape[0] > PLANE[0] or grid.shape[1] > PLANE[1]:
            raise ModelRefusal(
                "volume-too-large", "A crop may be 48 mm from right to left and 64 mm from back to front at most."
            )
        values = to_grid(volume, grid)
        probabilities = self.infer(values)
        report(0.8)
        quality = self._judged(values, probabilities)
        labels = labels_in_volume(volume, grid, probabilities)
        report(1.0)
        return ModelOutput(labels, (), quality)

    def _of_head(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        found = self._head.map(volume, lambda share: report(0.6 * share))
        labels = np.zeros(volume.values.shape, np.uint8)
        quality: dict[str, float] = {}
        flags = [flag for flag in found.flags if flag != "coarse-mask"]
        refusal: ModelRefusal | None = None
        for n, side in enumerate(_SIDES):
            grid, values, probabilities = self._settled(volume, found.expected_hippocampus(side))
            try:
                quality |= self._judged(values, probabilities, f"{side}_")
            except ModelRefusal as caught:
                refusal = caught
                flags.append(f"hippocampus-{side}-implausible")
            else:
                placed = labels_in_volume(volume, grid, probabilities)
                labels[placed > 0] = placed[placed > 0]
            report(0.6 + 0.2 * (n + 1))
        if not quality and refusal is not None:
            raise refusal
        return ModelOutput(labels, tuple(flags), quality)

    def _settled(
        self, volume: Volume, centre: NDArray[np.float64]
    ) -> tuple[Grid, NDArray[np.float32], NDArray[np.float32]]:
        """Move the crop until what it finds lies in its middle, as in the training crops."""
        moves = 0
        while True:
            grid = grid_at(centre, SPACING_MM, CROP)
            values = to_grid(volume, grid)
            probabilities = self.infer(values)
            places = np.argwhere(probabilities.argmax(axis=0) > 0)
            if len(places) == 0 or moves == _MOVES:
                break
            middle = grid.origin_ras_mm + (places.min(0) + places.max(0)) / 2 * SPACING_MM
            if np.abs(middle - centre).max() < _SETTLED_MM:
                break
            centre, moves = middle, moves + 1
        return grid, values, probabilities

    def _judged(
        self, values: NDArray[np.float32], probabilities: NDArray[np.float32], prefix: str = ""
    ) -> dict[str, float]:
        """Measures of what was found. Raises ModelRefusal where no hippocampus looks like that."""
        labels = probabilities.argmax(axis=0).astype(np.uint8)
        voxel_cm3 = SPACING_MM**3 / 1000
        anterior, posterior = float((labels == 1).sum() * voxel_cm3), float((labels == 2).sum() * voxel_cm3)
        volume_cm3, entropy = anterior + posterior, entropy_bits(probabilities, labels > 0)
        if not _VOLUME_CM3[0] <= volume_cm3 <= _VOLUME_CM3[1] or min(anterior, posterior) == 0:
            raise ModelRefusal(
                "anatomy-not-recognised", f"What was found has {volume_cm3:.1f} cm3; a hippocampus has 1 to 6 cm3."
            )
        distance = self._typical.distance(measures_of(values, labels, entropy))
        if distance > self._typical.limit or entropy > _ENTROPY_LIMIT_BITS:
            raise ModelRefusal(
                "anatomy-not-recognised", "What was found differs from every hippocampus that the model learned from."
            )
        return {
            f"{prefix}hippocampus_cm3": volume_cm3,
            f"{prefix}anterior_cm3": anterior,
            f"{prefix}posterior_cm3": posterior,
            f"{prefix}entropy_bits": entropy,
            f"{prefix}distance": distance,
        }

    def infer(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (class, i, j, k) of a crop at 1 mm, only in the largest piece."""
        scaled = (values - values.mean()) / (values.std() + 1e-6)
        size_i, size_j, size_k = scaled.shape
        top, left = (PLANE[0] - size_i) // 2, (PLANE[1] - size_j) // 2
        padded = np.pad(scaled, ((0, 0), (0, 0), (1, 1)), mode="edge")
        stack = np.zeros((size_k, 3, *PLANE), np.float32)
        for k in range(size_k):
            stack[k, :, top : top + size_i, left : left + size_j] = np.moveaxis(padded[:, :, k : k + 3], 2, 0)
        found = self.probabilities(stack)[:, :, top : top + size_i, left : left + size_j]
        probabilities = np.moveaxis(found, 0, 3)
        probabilities = probabilities * largest_component(probabilities[0] < 0.5)
        probabilities[0] = 1 - probabilities[1:].sum(axis=0)
        return probabilities
