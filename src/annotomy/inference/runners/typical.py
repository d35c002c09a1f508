"""How usual a found hippocampus is: its size, shape, place of its parts and brightness against those of the training cases.

A network that knows only hippocampi finds one in anything. Twelve plain measures and their covariance over the training
cases tell a knee's crop from a brain's where the network's own certainty does not.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation


@dataclass(frozen=True, slots=True)
class Typical:
    """Mean and inverse covariance of the measures over the training cases, and the largest distance that passes."""

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    limit: float

    @classmethod
    def read(cls, path: Path) -> "Typical":
        stored = json.loads(path.read_text())
        return cls(np.array(stored["mean"]), np.array(stored["precision"]), float(stored["limit"]))

    def distance(self, measures: NDArray[np.float64]) -> float:
        """Mahalanobis distance over the square root of the number of measures: 1 is usual."""
        apart = measures - self.mean
        return float(np.sqrt(apart @ self.precision @ apart / len(measures)))


def measures_of(values: NDArray[np.float32], labels: NDArray[np.uint8], entropy: float) -> NDArray[np.float64]:
    """Twelve measures of a crop at 1 mm in RAS order, whose labels hold both parts."""
    whole = labels > 0
    scaled = (values - values.mean()) / (values.std() + 1e-6)
    places = np.argwhere(whole)
    reach = np.ptp(places, axis=0)
    forward = np.argwhere(labels == 1).mean(0) - np.argwhere(labels == 2).mean(0)
    shell = np.logical_xor(binary_dilation(whole, iterations=3), binary_dilation(whole))
    inside, around = scaled[whole], scaled[shell]
    return np.array([
        np.log(len(places)), entropy, np.log((labels == 1).sum() / (labels == 2).sum()),
        *reach, abs(forward[0]), forward[1], forward[2],
        inside.mean(), inside.std(), around.std(),
    ])  # fmt: skip
