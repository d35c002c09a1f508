"""Masks: saving one slice of 100 segments x 800 slices, its first overlay; SEG beside highdicom; agreement beside surface-distance.

Ends with an error when a bar is not reached. The peer of the agreement (`./run bench setup`) is deepmind's package
`surface-distance`; its HD95 weighs surface elements by their area, ours counts border voxels, so that only Dice must be
equal. `--alone` leaves the peers out.
"""

import gzip
import io
import json
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import psutil
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from annotomy.archive.volume import SourcePlane, VolumeSource
from annotomy.dicom.seg import SegForm, SegIdentity
from annotomy.dicom.seg_read import read_seg
from annotomy.segmentations.agreement import agreement
from annotomy.segmentations.bricks import of_labels, of_masks
from annotomy.segmentations.importing import masks_of_seg
from annotomy.segmentations.seg_file import seg_of
from annotomy.segmentations.segment import NewSegment
from bench import corpus
from bench.machine import facts
from bench.measure import RESULTS, Request, send_all
from bench.servers import PEER_PYTHON, PeerMissing, Server, ours
from bench.stow import MULTIPART_JSON, store_path, stored

SALT = 23
SLICES, SIDE, SEGMENTS = 800, 512, 100
SAVES = 60
SEG_SLICES = 300
LIVER = ("10200004", "SCT", "Liver")
BARS = {
    "save_p95_ms": 60.0,
    "save_written_ratio": 2.0,
    "first_overlay_s": 1.0,
    "read_98_segments_s": 5.0,
    "write_binary_ratio": 1.0,
    "write_labelmap_ratio": 0.5,
    "agreement_ratio": 0.3,
}
"""The most of each."""
PEER_AGREEMENT = """
import json, sys, time
import numpy as np
import surface_distance as sd
a, b = np.load(sys.argv[1]), np.load(sys.argv[2])
times = []
for _ in range(int(sys.argv[3])):
    began = time.perf_counter()
    distances = sd.compute_surface_distances(a, b, spacing_mm=(2.5, 0.75, 0.75))
    hd95, dice = sd.compute_robust_hausdorff(distances, 95), sd.compute_dice_coefficient(a, b)
    times.append(time.perf_counter() - began)
print(json.dumps({"dice": float(dice), "hd95_mm": float(hd95), "seconds": sorted(times)[len(times) // 2]}))
"""


def run(runs: int, alone: bool) -> None:
    machine = facts()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        found |= _agreement(Path(folder), runs, alone)
    found |= _seg(runs, alone)
    with ours() as server:
        found |= _edited(server)
    for name, value in found.items():
        bar = BARS.get(name)
        print(f"{name:28}{value:12.3f}" + ("" if bar is None else f"   at most {bar}"))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "masks.json"
    result = {"benchmark": "masks", "machine": machine, "notes": __doc__, "bars": BARS, "medians": found}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    missed = [name for name, bar in BARS.items() if found.get(name, 0.0) > bar]
    assert not missed, f"above the bar: {', '.join(missed)}"


def _median_s(runs: int, work: Callable[[], object]) -> float:
    """After one that warms up."""
    times: list[float] = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[runs // 2]


def _ellipsoid(shape: tuple[int, int, int], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    (ck, cj, ci), (rk, rj, ri) = centre, radii
    return ((k - ck) / rk) ** 2 + ((j - cj) / rj) ** 2 + ((i - ci) / ri) ** 2 <= 1


def _agreement(folder: Path, runs: int, alone: bool) -> dict[str, float]:
    """Two masks of 75 MB as arrays; ours begins at the bricks that the server keeps."""
    shape = (SEG_SLICES, SIDE, SIDE)
    one = _ellipsoid(shape, (150, 250, 260), (110, 120, 130))
    other = _ellipsoid(shape, (153, 253, 256), (112, 118, 133))
    affine = np.diag([0.75, 0.75, 2.5, 1.0])
    kept = of_masks({1: one}, shape), of_masks({1: other}, shape)
    agreed = agreement(kept[0], 1, kept[1], 1, affine, 1.0)
    found = {"agreement_s": _median_s(runs, lambda: agreement(kept[0], 1, kept[1], 1, affine, 1.0))}
    if not alone:
        for name, mask in (("one", one), ("other", other)):
            np.save(folder / f"{name}.npy", mask)
        if not PEER_PYTHON.exists():
            raise PeerMissing("surface-distance")
        command = [
            str(PEER_PYTHON),
            "-c",
            PEER_AGREEMENT,
            str(folder / "one.npy"),
            str(folder / "other.npy"),
            str(runs),
        ]
        told: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert abs(told["dice"] - agreed.dice) < 1e-9, (told, agreed)
        found |= {"agreement_peer_s": told["seconds"], "agreement_ratio": found["agreement_s"] / told["seconds"]}
    return found


def _seg(runs: int, alone: bool) -> dict[str, float]:
    """The same label map and headers; what is compared is the whole Part-10 file in memory."""
    source = _source(SEG_SLICES)
    shape = source.shape_kji
    four = np.zeros(shape, np.uint8)
    for n, centre in enumerate(((150, 150, 150), (150, 150, 350), (150, 350, 150), (150, 350, 350)), start=1):
        four[_ellipsoid(shape, centre, (150, 80, 80))] = n
    masks, segments = of_labels(four, range(1, 5)), _segments(4)
    found: dict[str, float] = {}
    forms: tuple[SegForm, ...] = ("BINARY", "LABELMAP")
    for form in forms:
        name = f"write_{form.lower()}"
        found[f"{name}_s"] = _median_s(runs, lambda form=form: seg_of(masks, segments, source, _identity(), form))
        if not alone:
            found[f"{name}_peer_s"] = _median_s(runs, lambda form=form: _peer_seg(source, four, form))
            found[f"{name}_ratio"] = found[f"{name}_s"] / found[f"{name}_peer_s"]
    many = _scattered(shape, 98)
    kept = of_labels(many, range(1, 99))
    data = seg_of(kept, _segments(98), source, _identity())
    assert masks_of_seg(read_seg(data), source) == kept
    found["read_98_segments_s"] = _median_s(runs, lambda: masks_of_seg(read_seg(data), source))
    if not alone:
        found["read_98_segments_peer_s"] = _median_s(1, lambda: _peer_read(data, many))
    return found


def _peer_read(data: bytes, expected: NDArray[np.uint8]) -> None:
    volume = hd.seg.segread(io.BytesIO(data)).get_volume(combine_segments=True)
    assert np.count_nonzero(volume.array) == np.count_nonzero(expected)


def _peer_seg(source: VolumeSource, labels: NDArray[np.uint8], form: SegForm) -> bytes:
    described = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=f"Segment {n}",
            segmented_property_category=Code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=Code(*LIVER),
            algorithm_type="MANUAL",
        )
        for n in range(1, 5)
    ]
    seg = hd.seg.Segmentation(
        source_images=source.headers,
        pixel_array=labels,
        segmentation_type=form,
        segment_descriptions=described,
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.2",
        instance_number=1,
        manufacturer="Bench",
        manufacturer_model_name="Bench",
        software_versions="1",
        device_serial_number="1",
    )
    buffer = io.BytesIO()
    seg.save_as(buffer)
    return buffer.getvalue()


def _scattered(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Balls of one label each."""
    random = np.random.default_rng(3)
    labels = np.zeros(shape, np.uint8)
    for n in range(1, count + 1):
        radius = int(random.integers(12, 26))
        low = [int(random.integers(0, side - 2 * radius)) for side in shape]
        box = labels[tuple(slice(a, a + 2 * radius) for a in low)]
        box[_ellipsoid(box.shape, (radius,) * 3, (radius - 0.5,) * 3)] = n
    return labels


def _segments(count: int) -> list[NewSegment]:
    return [NewSegment(n, f"Segment {n}", LIVER, "#ff8800") for n in range(1, count + 1)]


def _identity() -> SegIdentity:
    return SegIdentity("2.25.1", "2.25.2", 9000, 1, "bench", datetime.now(UTC), "1", "bench")


def _slice(k: int, pixels: bytes | None) -> Dataset:
    dataset = dcmread(io.BytesIO(corpus.study(SALT, instances=1, size=8)[0].data))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(corpus.uid(3, SALT, k))
    dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, k], k + 1
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if pixels is None:
        del dataset.PixelData
    else:
        dataset.PixelData = pixels
    return dataset


def _source(slices: int) -> VolumeSource:
    headers: list[Any] = [_slice(k, None) for k in range(slices)]
    affine = np.diag([0.7, 0.7, 1.0, 1.0])
    planes = tuple(SourcePlane(str(h.SOPInstanceUID), str(h.SOPClassUID), None) for h in headers)
    first = headers[0]
    return VolumeSource(
        str(first.StudyInstanceUID), str(first.SeriesInstanceUID), str(first.FrameOfReferenceUID), "CT", "",
        (slices, SIDE, SIDE), affine, planes, tuple(headers),
    )  # fmt: skip


def _edited(server: Server) -> dict[str, float]:
    """Over HTTP: import of the case, saves of one slice of one segment each, and reads of one slice of all segments."""
    archive = server.at("/dicom-web")
    empty = bytes(SIDE * SIDE)
    for first in range(0, SLICES, 100):
        instances = [_instance(_slice(k, empty)) for k in range(first, min(first + 100, SLICES))]
        request = Request(
            "POST", store_path(archive), stored(len(instances)), corpus.multipart(instances), MULTIPART_JSON
        )
        send_all(archive, [request])
    labels = _scattered((SLICES, SIDE, SIDE), SEGMENTS)
    masks = of_labels(labels, range(1, SEGMENTS + 1))
    made = _imported(server, labels)
    path = f"/api/v1/segmentations/{made['id']}"
    shape, version = masks.shape_kji, int(made["version"])
    brick_bytes = 16 * SIDE * SIDE // 8
    latencies: list[float] = []
    written = _written(server)
    for n in range(SAVES):
        number, index = sorted(masks.bricks)[n * 7 % len(masks.bricks)]
        slab = masks.slab(number, index).copy()
        slab[n % len(slab), 10 + n : 60 + n, 20:90] ^= True
        header = json.dumps(
            {
                "shape_kji": shape,
                "bricks": [{"segment_number": number, "brick_index": index, "offset": 0, "length": brick_bytes}],
            }
        ).encode()
        body = struct.pack("<I", len(header)) + header + np.packbits(slab, axis=None, bitorder="little").tobytes()
        headers = {"Content-Type": "application/octet-stream", "If-Match": f'"{version}"'}
        sample = send_all(server, [Request("POST", f"{path}/versions", _version(version + 1), body, headers)])
        latencies += sample.latencies_ms
        version += 1
    written = _written(server) - written
    overlays: list[float] = []
    for n in range(20):
        read = Request(
            "GET", f"{path}/masks?first_slice={n * 37 % SLICES}", _overlay, None, {"Accept-Encoding": "gzip"}
        )
        overlays += send_all(server, [read]).latencies_ms
    kept = sorted(latencies[5:])
    return {
        "save_p50_ms": kept[len(kept) // 2],
        "save_p95_ms": kept[int(len(kept) * 0.95)],
        "save_written_ratio": written / (SAVES * brick_bytes),
        "first_overlay_s": overlays[0] / 1000,
        "overlay_p95_s": sorted(overlays)[18] / 1000,
    }


def _instance(dataset: Dataset) -> corpus.Instance:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    uids = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)
    return corpus.Instance(*uids, buffer.getvalue())


def _imported(server: Server, labels: NDArray[np.uint8]) -> dict[str, Any]:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([0.7, 0.7, 1.0, 1.0])
    image: Any = nib.Nifti1Image(labels.transpose(2, 1, 0), affine)
    metadata = {
        "project_id": server.project_id,
        "study_instance_uid": corpus.uid(1, SALT, 0),
        "series_instance_uid": corpus.uid(2, SALT, 0),
        "label": "bench",
    }
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n' + json.dumps(metadata).encode(),
        b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + gzip.compress(image.to_bytes(), 1),
        b"\r\n--b--\r\n",
    ]
    answers: list[dict[str, Any]] = []

    def check(status: int, body: bytes) -> str | None:
        if status != 201:
            return f"status {status}: {body[:300]!r}"
        answers.append(json.loads(body))
        return None

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    send_all(server, [Request("POST", "/api/v1/segmentations", check, b"".join(parts), headers)])
    assert len(answers[0]["segments"]) == SEGMENTS
    return answers[0]


def _version(expected: int) -> Callable[[int, bytes], str | None]:
    def check(status: int, body: bytes) -> str | None:
        return None if status == 201 and json.loads(body)["version"] == expected else f"status {status}: {body[:300]!r}"

    return check


def _overlay(status: int, body: bytes) -> str | None:
    if status != 200:
        return f"status {status}: {body[:300]!r}"
    plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    expected = SEGMENTS * SIDE * SIDE // 8
    return None if len(plain) > expected else f"{len(plain)} bytes instead of {expected} and a header"


def _written(server: Server) -> int:
    """Bytes that the server's processes, its database included, handed to the file system."""
    total = 0
    for root in server.processes():
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.io_counters().write_bytes
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return total
