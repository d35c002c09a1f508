"""A network stored as ONNX, opened when it is first asked, and the card beside it.

What the built-in runners share: reading `card.json`, one inference session, class probabilities, and the refusals that
hold for every MR model.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.special import softmax

from annotomy.inference.runners.grid import extent_mm
from annotomy.inference.runners.installed import read_card
from annotomy.ports import ModelCard, ModelOutput, ModelRefusal, Volume

# 64 Mi voxels of float32 are 256 MiB; smoothing and labels together keep a run under 2 GB.
VOXEL_LIMIT = 64 * 1024 * 1024
# Air is about -1000 in Hounsfield units; MR magnitudes are not negative, and offsets of processed images are small.
_AIR_HU = -500.0
_OTHER_BODY_PARTS = (
    "CHEST", "THORAX", "LUNG", "HEART", "ABDOMEN", "PELVIS", "SPINE", "KNEE", "HIP", "SHOULDER", "BREAST", "PROSTATE",
    "LIVER", "KIDNEY", "LEG", "FOOT", "ANKLE", "HAND", "WRIST", "ELBOW",
)  # fmt: skip


class OnnxRunner:
    """A `ModelRunner` whose network is `model.onnx` beside `card.json` in one folder."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._path = folder / "model.onnx"
        self._threads = threads
        self._card = read_card(folder)
        self._opening = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    def describe(self) -> ModelCard:
        return self._card

    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        raise NotImplementedError

    def probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax over axis 1 of the network's logits."""
        with self._opening:
            if self._session is None:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = self._threads
                options.inter_op_num_threads = 1
                self._session = onnxruntime.InferenceSession(
                    str(self._path), options, providers=["CPUExecutionProvider"]
                )
        logits = cast("NDArray[np.float32]", self._session.run(None, {"image": image})[0])
        return np.asarray(softmax(logits, axis=1), np.float32)


def require_mr_of_the_head(volume: Volume) -> None:
    """What can be seen without running a network."""
    if volume.values.ndim != 3 or volume.values.size == 0:
        raise ModelRefusal("not-a-volume", "The model needs a volume of several slices.")
    if volume.values.size > VOXEL_LIMIT:
        raise ModelRefusal(
            "volume-too-large", f"The volume has {volume.values.size} voxels; the limit is {VOXEL_LIMIT}."
        )
    if volume.modality not in ("", "MR"):
        raise ModelRefusal("modality-not-supported", f"The model reads MR, not {volume.modality}.")
    if not np.isfinite(volume.values).all():
        raise ModelRefusal("values-not-finite", "The volume holds values that are not finite.")
    if float(volume.values.min()) < _AIR_HU:
        raise ModelRefusal("modality-not-supported", "The values look like Hounsfield units; the model reads MR.")
    if float(np.ptp(volume.values)) == 0.0:
        raise ModelRefusal("anatomy-not-recognised", "The volume is the same everywhere.")
    body_part = volume.body_part.upper()
    if any(word in body_part for word in _OTHER_BODY_PARTS):
        raise ModelRefusal("anatomy-not-recognised", f"The model reads the head; the series shows {body_part}.")
    if (extent_mm(volume) < 20).any():
        raise ModelRefusal("anatomy-not-recognised", "The volume is thinner than 20 mm; the model needs a 3-D volume.")


def entropy_bits(probabilities: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Mean entropy over the chosen voxels: 0 is certain. `probabilities` has classes first."""
    chosen = probabilities[:, where]
    if chosen.shape[1] == 0:
        return 0.0
    return float(-(chosen * np.log2(np.maximum(chosen, 1e-7))).sum(axis=0).mean())


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    import cc3d

    return np.asarray(cc3d.largest_k(mask.astype(np.uint8), k=1, connectivity=26)) > 0
