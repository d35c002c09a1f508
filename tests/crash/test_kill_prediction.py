"""kill -9 of server, worker or PostgreSQL while a built-in model runs on a stored head.

An accepted prediction succeeds once whatever is killed: one segmentation with its one SEG, equal to that of an undisturbed
run, and nothing of it to be seen before.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import nibabel as nib
import nilearn
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from annotomy.dicom.nifti import nifti_to_dicom
from tests.crash.test_kill import FEW, TAKEN_OVER_S, killing, points, query
from tests.db.private_data import data_folder
from tests.support.serve import Serve, wait_until

MNI_HEAD = Path(nilearn.__file__).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SEG_CLASSES = "1.2.840.10008.5.1.4.1.1.66.%"
ENDS_S = 60


class Head:
    """The server, with a head of 3 mm in its archive and what the model finds in it."""

    def __init__(self, serve: Serve, folder: Path) -> None:
        self.serve = serve
        self.files = list(nifti_to_dicom(coarse_head(folder), salt="kill"))
        with serve.client() as client:
            parts = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in self.files)
            stored = client.post(
                f"{serve.address}/dicom-web/studies",
                content=parts + b"--b--\r\n",
                headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
            )
            assert stored.status_code == 200, stored.text
            study = client.get("/dicom-web/series?limit=1").raise_for_status().json()[0]
            self.series_instance_uid = study["0020000E"]["Value"][0]
            me = client.get("/api/v1/users/me").raise_for_status().json()
            self.project_id = me["projects"][0]["project_id"]
        self.undisturbed = self.statistics(self.ended(self.ask()))

    def ask(self) -> Any:
        body = {"model": "head", "project_id": self.project_id, "series_instance_uid": self.series_instance_uid}
        with self.serve.client() as client:
            return client.post("/api/v1/predictions", json=body).raise_for_status().json()

    def ended(self, asked: Any, timeout_s: float = ENDS_S) -> Any:
        """The prediction once it has ended. A segmentation never shows before its prediction has succeeded."""
        found: dict[str, Any] = dict(asked)

        def over() -> bool:
            with contextlib.suppress(httpx.TransportError, httpx.HTTPStatusError), self.serve.client() as client:
                # In this order: what is listed before the state is asked must be the result of a success.
                listed = client.get("/api/v1/segmentations?limit=1000").raise_for_status().json()["items"]
                found.update(client.get(f"/api/v1/predictions/{asked['id']}").raise_for_status().json())
                shown = [one for one in listed if one["prediction_id"] == asked["id"]]
                assert not shown or found["state"] == "succeeded", found
            return found["state"] not in ("queued", "running")

        wait_until(over, "the prediction has ended", timeout_s)
        return found

    def statistics(self, prediction: Any) -> Any:
        assert prediction["state"] == "succeeded", prediction
        with self.serve.client() as client:
            answer = client.get(f"/api/v1/segmentations/{prediction['segmentation_id']}").raise_for_status().json()
        assert answer["state"] == "proposal"
        return [(one["segment_number"], one["statistics"]) for one in answer["segments"]]


def coarse_head(folder: Path) -> Path:
    """Every third voxel of the template: small to store, and still a head to the model."""
    image: Any = cast("Any", nib.load(MNI_HEAD))  # pyright: ignore[reportPrivateImportUsage]
    affine = image.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    path = folder / "head.nii"
    Nifti1Image(np.asarray(image.dataobj)[::3, ::3, ::3].astype(np.int16), affine).to_filename(path)
    return path


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with data_folder() as data:
        started = Serve(data, ANNOTOMY_WORKERS_INLINE="1").start()
        yield Head(started, tmp_path_factory.mktemp("head"))
        started.stop()


@points(FEW)
def test_a_kill_while_a_model_runs(head: Head, target: str, seed: int) -> None:
    serve = head.serve
    asked = head.ask()
    with killing(serve, target, seed):
        pass
    ended = head.ended(asked, TAKEN_OVER_S)
    assert head.statistics(ended) == head.undisturbed
    [stored] = query(
        serve.data,
        "select (select count(*) from segmentations where prediction_id = p.id) as segmentations,"
        " (select count(*) from events where type = 'prediction.succeeded' and object_id = p.id::text) as events,"
        " (select state from jobs where id = p.job_id) as job,"
        " (select count(*) from segmentations) as all_segmentations,"
        " (select count(*) from predictions where outcome = 'succeeded') as all_succeeded,"
        f" (select count(*) from instances where sop_class_uid like '{SEG_CLASSES}') as all_segs"
        " from predictions p where id = $1::text::uuid",
        asked["id"],
    )
    found = json.dumps(dict(stored))
    assert (stored["segmentations"], stored["events"], stored["job"]) == (1, 1, "succeeded"), found
    assert stored["all_segmentations"] == stored["all_succeeded"] == stored["all_segs"], found
