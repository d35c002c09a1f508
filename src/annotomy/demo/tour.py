"""What the demo does against the running server, as any client would: load, predict, fetch, check, draw.

Everything may be there from an earlier start: then nothing is loaded or predicted twice, and all is checked again.
"""

import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
from pydicom import dcmread

from annotomy.demo import DemoFailed, checks, samples
from annotomy.demo.pictures import Shown, draw_overlay
from annotomy.dicom.nifti import nifti_to_dicom
from annotomy.settings import Settings
from annotomy.transfer.connection import TransferError, body_of, connect, problem_text
from annotomy.transfer.export_study import export_dicom
from annotomy.transfer.import_files import import_paths, project_named

PROJECT = "Demo"
MODELS = ("head", "hippocampus")
POLL_S = 0.25
PREDICTION_TIMEOUT_S = 600.0
"""Each model takes seconds on one core; a machine that is this much slower has no worker running."""

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Result:
    """One model's result as the closing block shows it."""

    model: str
    model_version: str
    segmentation_id: str
    series_instance_uid: str
    seg_series_instance_uid: str
    seg_sop_instance_uid: str
    volumes_ml: dict[str, float]
    picture: str
    dice: float | None = None
    right_left_ml: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Tour:
    project_id: str
    study_instance_uids: list[str]
    head_study_instance_uid: str
    results: list[Result]
    summary: str


def tour(settings: Settings, *, say: Say, progress: Say) -> Tour:
    """`say` tells of a step that is done, `progress` of what is going on. Raises DemoFailed."""
    folder = settings.data_dir / "demo"
    try:
        with connect(settings) as client:
            project_id = project_named(client, PROJECT, told=lambda text: None)
            head_study, studies = _load(client, project_id, say=say, progress=progress)
            series = _series_of(client, head_study)
            results = _predict(client, project_id, head_study, series, folder, say=say, progress=progress)
            say("checked")
    except (TransferError, samples.SamplesMissing, checks.CheckFailed) as error:
        raise DemoFailed(str(error)) from error
    except httpx.TransportError as error:
        raise DemoFailed(f"the server does not answer any more ({type(error).__name__})") from error
    summary = folder / "summary.json"
    found = Tour(project_id, studies, head_study, results, str(summary))
    summary.write_text(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return found


def _load(client: httpx.Client, project_id: str, *, say: Say, progress: Say) -> tuple[str, list[str]]:
    """The study of the head, and all sample studies of the project."""
    head, others = samples.head_file(), samples.dicom_files()
    # The archive derives the UIDs of a NIfTI series from its content, so they are known before it is sent.
    head_slice = next(nifti_to_dicom(head, salt=project_id, filename=samples.HEAD_NAME))
    head_study = _study_uid(head_slice)
    wanted = {head_study: head} | {_study_uid(path): path for path in others}
    held = body_of(client.get(f"/api/v1/projects/{project_id}/studies"))["items"]
    missing = wanted.keys() - {one["study_instance_uid"] for one in held}
    if not missing:
        say("there", count=len(wanted))
        return head_study, list(wanted)
    with tempfile.TemporaryDirectory(prefix="annotomy-demo-") as folder:
        paths = [wanted[uid] for uid in wanted if uid in missing and uid != head_study]
        if head_study in missing:
            named = Path(folder) / samples.HEAD_NAME
            named.symlink_to(head)
            paths.insert(0, named)
        progress("loading", name=", ".join(path.name for path in paths))
        report = import_paths(
            client, paths, project_id=project_id, told=lambda result: None, progress=lambda text: None
        )
    refused = [f"{Path(one.path).name}: {one.reason}" for one in report.files if one.state == "refused"]
    if refused:
        raise DemoFailed("samples were refused: " + "; ".join(refused))
    if lost := missing - report.study_instance_uids:
        raise DemoFailed(f"{len(lost)} sample studies did not arrive")
    say("loaded", count=len(missing), project=PROJECT)
    return head_study, list(wanted)


def _study_uid(source: bytes | Path) -> str:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return str(dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def _series_of(client: httpx.Client, study_instance_uid: str) -> str:
    answer = client.get(f"/dicom-web/studies/{study_instance_uid}/series", params={"Modality": "MR"})
    if answer.status_code != 200:
        raise DemoFailed(f"the head's series was not found: {problem_text(answer)}")
    return answer.json()[0]["0020000E"]["Value"][0]


def _predict(
    client: httpx.Client, project_id: str, study: str, series: str, folder: Path, *, say: Say, progress: Say
) -> list[Result]:
    """One model after the other, so that the hippocampus is the newest and the viewer opens at it.

    A result is checked while the next model runs.
    """
    results: list[Result] = []
    image, done = None, None
    for model in MODELS:
        prediction_id = _ask(client, project_id, series, model, say=say, progress=progress)
        if image is None:
            image = _fetch_image(client, study, series)
        if done is not None:
            results.append(_result(client, done, study, image, folder))
        done = _wait(client, prediction_id, say=say, progress=progress)
        progress("checking", model=model)
    assert done is not None
    results.append(_result(client, done, study, image, folder))
    return results


def _ask(client: httpx.Client, project_id: str, series: str, model: str, *, say: Say, progress: Say) -> str:
    """A prediction of the model's present version: one that succeeded earlier, else a new one."""
    version = body_of(client.get(f"/api/v1/models/{model}"))["version"]
    query = {"series_instance_uid": series, "project_id": project_id, "state": "succeeded"}
    for one in body_of(client.get("/api/v1/predictions", params=query))["items"]:
        is_same = (one["model"], one["model_version"]) == (model, version)
        if is_same and client.get(f"/api/v1/segmentations/{one['segmentation_id']}").is_success:
            say("reused", model=model)
            return one["id"]
    body = {"model": model, "project_id": project_id, "series_instance_uid": series}
    asked = body_of(client.post("/api/v1/predictions", json=body))["id"]
    progress("asked", model=model)
    return asked


def _wait(client: httpx.Client, prediction_id: str, *, say: Say, progress: Say) -> dict[str, Any]:
    began = time.monotonic()
    waited = False
    while True:
        found = body_of(client.get(f"/api/v1/predictions/{prediction_id}"))
        if found["state"] == "succeeded":
            if waited:
                say("succeeded", model=found["model"])
            return found
        if found["state"] not in ("queued", "running"):
            reason = (found["problem"] or {}).get("detail", "no reason is known")
            raise DemoFailed(f"the model {found['model']} {found['state']}: {reason}")
        if time.monotonic() - began > PREDICTION_TIMEOUT_S:
            raise DemoFailed(f"the model {found['model']} is {found['state']} for {PREDICTION_TIMEOUT_S:.0f} s")
        progress("running", model=found["model"], state=found["state"], percent=round(100 * found["progress"]))
        waited = True
        time.sleep(POLL_S)


def _fetch_image(client: httpx.Client, study: str, series: str) -> Any:
    """The series as the archive gives it back, axes right-left, posterior-anterior, inferior-superior."""
    with tempfile.TemporaryDirectory(prefix="annotomy-demo-") as folder:
        export_dicom(client, study, Path(folder), series_instance_uid=series, told=lambda path: None)
        values, affine = checks.image_of(Path(folder))
    return nib.as_closest_canonical(nib.Nifti1Image(values, affine))


def _result(client: httpx.Client, prediction: dict[str, Any], study: str, image: Any, folder: Path) -> Result:
    segmentation = body_of(client.get(f"/api/v1/segmentations/{prediction['segmentation_id']}"))
    masks = client.get(f"/api/v1/segmentations/{segmentation['id']}/masks")
    if not masks.is_success:
        raise TransferError(problem_text(masks))
    mask = checks.Mask.from_masks_body(masks.content)
    for segment in segmentation["segments"]:
        checks.check_statistics(mask, segment)
    seg_series = _check_seg(client, study, segmentation)
    model = prediction["model"]
    picture = folder / f"{model}.png"
    volumes = {one["label"]: one["statistics"]["volume_mm3"] / 1000 for one in segmentation["segments"]}
    shown = [
        Shown(one["segment_number"], one["label"], one["color"], volumes[one["label"]])
        for one in segmentation["segments"]
    ]
    draw_overlay(
        np.asarray(image.dataobj, np.float32),
        checks.on_grid_of(mask, image.shape, np.asarray(image.affine)),
        [float(v) for v in image.header.get_zooms()[:3]],
        shown,
        title=samples.HEAD_NAME.removesuffix(".nii.gz"),
        subtitle=f"Proposal of the model {model} {prediction['model_version']}. Not for diagnosis.",
        path=picture,
    )
    return Result(
        model=model,
        model_version=prediction["model_version"],
        segmentation_id=segmentation["id"],
        series_instance_uid=segmentation["series_instance_uid"],
        seg_series_instance_uid=seg_series,
        seg_sop_instance_uid=segmentation["sop_instance_uid"],
        volumes_ml={label: round(volume, 3) for label, volume in volumes.items()},
        picture=str(picture),
        dice=round(checks.brain_dice(mask), 4) if model == "head" else None,
        right_left_ml=checks.hippocampi_ml(mask) if model == "hippocampus" else None,
    )


def _check_seg(client: httpx.Client, study: str, segmentation: dict[str, Any]) -> str:
    """The DICOM SEG as any DICOMweb client finds and fetches it. Returns its series."""
    sop_uid = segmentation["sop_instance_uid"]
    found = client.get(f"/dicom-web/studies/{study}/instances", params={"SOPInstanceUID": sop_uid or "none"})
    if found.status_code != 200:
        raise checks.CheckFailed("the DICOM SEG is not found over DICOMweb")
    seg_series = found.json()[0]["0020000E"]["Value"][0]
    with tempfile.TemporaryDirectory(prefix="annotomy-demo-") as scratch:
        written: list[Path] = []
        export_dicom(client, study, Path(scratch), series_instance_uid=seg_series, told=written.append)
        files = [path for path in written if path.stem == sop_uid]
        checks.check_dicom_seg(files[0].read_bytes(), segmentation["segments"])
    return seg_series
