"""Models for the mechanics around models: quick, exact, and badly behaved on demand. Loaded by name in the model process."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotomy.ports import ModelCard, ModelLabel, ModelOutput, ModelRefusal, Volume

FACTORY = "tests.inference.fake_models:fake_model"
LABELS = (
    ModelLabel(1, "Bright", ("49755003", "SCT", "Morphologically abnormal structure"), "#ff0000"),
    ModelLabel(2, "Brightest", ("260385009", "SCT", "Negative"), "#00ff00"),
)


@dataclass(frozen=True)
class FakeModel:
    """Marks the upper half and the upper tenth of the values; its name says how else it behaves."""

    name: str
    gate: Path | None = None
    """A file that the test makes when the model may go on."""

    def describe(self) -> ModelCard:
        return fake_card(self.name)

    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        report(0.25)
        if self.name == "refuses":
            raise ModelRefusal("anatomy-not-recognised", "It is not what the model was made for.")
        if self.name == "raises":
            raise KeyError("a bug")
        if self.name == "crashes":
            ctypes.string_at(0)
        if self.name == "eats memory":
            held = [np.ones(1 << 27) for _ in range(1 << 10)]
            assert held
        if self.name == "never ends":
            while True:
                time.sleep(0.01)
        while self.gate is not None and not self.gate.exists():
            report(0.5)
            time.sleep(0.01)
        low, middle, high = np.quantile(volume.values, (0.0, 0.5, 0.9))
        labels = (volume.values > middle).astype(np.uint8) + (volume.values > high).astype(np.uint8)
        if self.name == "answers another shape":
            labels = labels[:-1]
        if self.name == "answers unknown labels":
            labels[0, 0, 0] = 9
        report(1.0)
        quality = {"low": float(low), "process": float(len(volume.values)), "not a number": float("nan")}
        return ModelOutput(labels, ("made-for-tests",), quality)


def fake_model(name: str, threads: int) -> FakeModel:
    """`NAME until FILE` waits for the file."""
    assert threads == 1
    plain, _, gate = name.partition(" until ")
    return FakeModel(plain, Path(gate) if gate else None)


def fake_card(name: str) -> ModelCard:
    return ModelCard(name, "1.0.0", "Brightness", ("CT",), LABELS, "Tests.", "Apache-2.0")
