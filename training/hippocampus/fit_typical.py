"""Measures the training cases as the shipped model sees them and writes `typical.json` beside it.

python fit_typical.py --data FOLDER/msd-hippocampus-train      (in the product's environment, no torch)
"""

import argparse
import json
import random
from pathlib import Path

import nibabel as nib
import numpy as np

from annotomy.inference.runners.builtin import MODELS_FOLDER, builtin_runners
from annotomy.inference.runners.grid import grid_around, to_grid
from annotomy.inference.runners.hippocampus import HippocampusRunner
from annotomy.inference.runners.onnx import entropy_bits
from annotomy.inference.runners.typical import Typical, measures_of
from annotomy.ports import Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    names = sorted(p.name for p in (folder / "images").glob("hippocampus_*.nii.gz"))
    random.Random(7).shuffle(names)
    runner = builtin_runners()["hippocampus"]
    assert isinstance(runner, HippocampusRunner)
    rows = []
    for name in names[:230]:
        image = nib.load(folder / "images" / name)
        volume = Volume(np.asarray(image.dataobj, np.float32).T, RAS_TO_LPS @ image.affine)
        values = to_grid(volume, grid_around(volume, 1.0))
        probabilities = runner.infer(values)
        labels = probabilities.argmax(axis=0).astype(np.uint8)
        if min((labels == 1).sum(), (labels == 2).sum()):
            rows.append(measures_of(values, labels, entropy_bits(probabilities, labels > 0)))
    measured, kept_back = np.array(rows[:200]), np.array(rows[200:])
    covariance = np.cov(measured.T) + np.diag(measured.var(axis=0) * 0.1)
    typical = Typical(measured.mean(axis=0), np.linalg.inv(covariance), 0.0)
    print("training", np.quantile([typical.distance(m) for m in measured], [0.5, 0.95, 0.99, 1.0]).round(2))
    print("validation", np.quantile([typical.distance(m) for m in kept_back], [0.5, 0.95, 1.0]).round(2))
    stored = {"limit": 3.0, "mean": typical.mean.round(5).tolist(), "precision": typical.precision.round(5).tolist()}
    (MODELS_FOLDER / "hippocampus" / "typical.json").write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
