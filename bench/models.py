"""Built-in models on cases that training never saw: Dice, HD95, volume error and seconds of each, on one thread.

Needs the hippocampus pairs of the Medical Segmentation Decathlon (Task04) in the development data; the head model is
judged on the MNI152 template. Ends with an error when a bar is not reached.
"""

import json
import random
import time
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import onnxruntime
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from annotomy.inference.runners.builtin import builtin_runners
from annotomy.inference.runners.installed import installed_cards
from annotomy.ports import ModelRunner, Volume
from bench.machine import ROOT, facts
from bench.measure import RESULTS

WHOLE_DICE_LEAST = 0.88
SECONDS_MOST = 2.0
"""For each case, on one core."""
VALIDATION = slice(200, 230)
"""Of the names sorted and shuffled by random.Random(7): training used the first 200."""
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PARTS = {"whole": (1, 2), "anterior": (1,), "posterior": (2,)}


def run(runs: int, alone: bool) -> None:
    """`runs` is how often each case is timed; the median counts. There are no peers."""
    del alone
    machine = facts()
    runner = builtin_runners(threads=1)["hippocampus"]
    cases = _validation_cases()
    warm_up, _ = cases[0]
    runner.predict(_volume(_read(warm_up)), _ignore)
    rows = [_judged(runner, image, label, runs) for image, label in cases]
    summary = {
        "cases": len(rows),
        **{f"dice_{part}_mean": _mean(rows, f"dice_{part}") for part in PARTS},
        "dice_whole_least": min(row["dice_whole"] for row in rows),
        "hd95_mm_mean": _mean(rows, "hd95_mm"),
        "hd95_mm_most": max(row["hd95_mm"] for row in rows),
        "volume_error_percent_mean": _mean(rows, "volume_error_percent"),
        "volume_error_percent_mean_absolute": float(np.mean([abs(row["volume_error_percent"]) for row in rows])),
        "seconds_mean": _mean(rows, "seconds"),
        "seconds_most": max(row["seconds"] for row in rows),
        "cpu_seconds_mean": _mean(rows, "cpu_seconds"),
    }
    head = _head(runs)
    result = {
        "benchmark": "models",
        "machine": machine,
        "onnxruntime": onnxruntime.__version__,
        "threads": 1,
        "models": {card.name: card.version for card in installed_cards()},
        "hippocampus": {"summary": summary, "cases": rows},
        "head": head,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "models.json"
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")
    for name, value in summary.items():
        print(f"  hippocampus {name:36} {value:8.3f}")
    for name, value in head.items():
        print(f"  head        {name:36} {value:8.3f}")
    print(f"written to {path}")
    assert summary["dice_whole_mean"] >= WHOLE_DICE_LEAST, "the hippocampus model is below its bar"
    assert summary["seconds_most"] <= SECONDS_MOST, "a case took longer than its bar"


def _judged(runner: ModelRunner, image_path: Path, label_path: Path, runs: int) -> dict[str, Any]:
    image: Any = _read(image_path)
    truth = np.asarray(_read(label_path).dataobj).T.astype(np.uint8)
    spacing_kji = np.linalg.norm(image.affine[:3, :3], axis=0)[::-1]
    volume = _volume(image)
    seconds, cpu_seconds = [], []
    found = np.zeros(truth.shape, np.uint8)
    for _ in range(max(1, runs)):
        wall, cpu = time.perf_counter(), time.process_time()
        found = runner.predict(volume, _ignore).labels
        seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    whole, true_whole = found > 0, truth > 0
    dice = {f"dice_{part}": _dice(np.isin(found, numbers), np.isin(truth, numbers)) for part, numbers in PARTS.items()}
    return {
        "case": image_path.name.removesuffix(".nii.gz"),
        **dice,
        "hd95_mm": hd95_mm(whole, true_whole, spacing_kji),
        "volume_error_percent": 100.0 * (float(whole.sum()) / float(true_whole.sum()) - 1.0),
        "seconds": float(np.median(seconds)),
        "cpu_seconds": float(np.median(cpu_seconds)),
    }


def _head(runs: int) -> dict[str, float]:
    import nilearn
    from nilearn.datasets import load_mni152_brain_mask

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    volume = _volume(_read(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
    mask = np.asarray(cast("Any", load_mni152_brain_mask(resolution=1)).dataobj).T > 0
    runner = builtin_runners(threads=1)["head"]
    found = runner.predict(volume, _ignore).labels
    seconds = []
    for _ in range(max(1, runs)):
        began = time.perf_counter()
        runner.predict(volume, _ignore)
        seconds.append(time.perf_counter() - began)
    return {
        "mni152_brain_dice": _dice(found > 0, mask),
        "mni152_hd95_mm": hd95_mm(found > 0, mask, np.ones(3)),
        "mni152_seconds": float(np.median(seconds)),
    }


def hd95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> float:
    """95th percentile of the distances between the voxel surfaces, the larger of both directions."""
    assert a.any(), "an empty mask has no surface"
    assert b.any(), "an empty mask has no surface"
    directions = [(_surface(a), _surface(b)), (_surface(b), _surface(a))]
    found = [
        float(np.percentile(np.asarray(distance_transform_edt(~there, sampling=spacing_mm))[here], 95))
        for here, there in directions
    ]
    return max(found)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~np.asarray(binary_erosion(mask), bool)


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def _validation_cases() -> list[tuple[Path, Path]]:
    data = next((p / "shared" / "data" for p in ROOT.parents if (p / "shared" / "data").is_dir()), None)
    assert data is not None, "the development data is not beside this checkout"
    folder = data / "pairs" / "msd-hippocampus-train"
    names = sorted(path.name for path in (folder / "images").glob("hippocampus_*.nii.gz"))
    random.Random(7).shuffle(names)
    return [(folder / "images" / name, folder / "labels" / name) for name in names[VALIDATION]]


def _read(path: Path) -> Nifti1Image:
    return cast("Nifti1Image", nib.load(path))  # pyright: ignore[reportPrivateImportUsage]


def _volume(image: Any) -> Volume:
    values = np.ascontiguousarray(np.asarray(image.dataobj, np.float32).T)
    return Volume(values, RAS_TO_LPS @ image.affine, "MR")


def _ignore(_: float) -> None:
    return None


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_rounded(one) for one in cast("list[Any]", value)]
    return round(value, 4) if isinstance(value, float) else value
