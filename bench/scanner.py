"""Headers: our scanner beside pydicom, on files in memory, by processor time; no server runs."""

import io
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.archive.parse import INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS, parse_instance
from annotomy.dicom.attributes import Attributes, tags_of
from annotomy.dicom.scanner import scan
from bench import corpus
from bench.machine import facts
from bench.measure import RESULTS

FILES = 100
FIFTEEN = (
    "SpecificCharacterSet", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "PatientID",
    "PatientName", "StudyDate", "StudyTime", "AccessionNumber", "Modality", "SeriesNumber", "InstanceNumber", "Rows", "Columns",
)  # fmt: skip
INDEXED = {*STUDY_KEYWORDS, *SERIES_KEYWORDS, *INSTANCE_KEYWORDS}
_WANTED = tags_of(FIFTEEN)
_TAGS = frozenset(tag for tag, _ in _WANTED.values())


def run(runs: int, alone: bool) -> None:
    files = [_enriched(one.data, n) for n, one in enumerate(corpus.study(77, instances=FILES, size=512))]
    machine = facts()
    ways: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], object]]] = {
        "15 attributes": (_scan_fifteen, _pydicom_fifteen),
        "all that the archive indexes": (parse_instance, _pydicom_indexed),
    }
    figures: dict[str, dict[str, list[float]]] = {}
    for name, (ours, theirs) in ways.items():
        for number in range(runs + 1):  # run 0 warms up
            for who, way in (("annotomy", ours), *([] if alone else [("pydicom", theirs)])):
                rate = _rate(way, files)
                if number:
                    figures.setdefault(name, {}).setdefault(who, []).append(rate)
    medians = {name: {who: statistics.median(rates) for who, rates in by.items()} for name, by in figures.items()}
    for name, by in medians.items():
        told = ", ".join(f"{who} {rate:.0f} files per CPU-second" for who, rate in by.items())
        print(f"{name}: {told}" + ("" if alone else f", ratio {by['annotomy'] / by['pydicom']:.1f}"))
    content = {
        "benchmark": "scanner",
        "notes": f"{FILES} CT files of 512 x 512 with 288 elements and nested sequences; files per second of processor time",
        "machine": machine,
        "medians": {name: {who: round(rate, 1) for who, rate in by.items()} for name, by in medians.items()},
        "runs": {
            name: {who: [round(r, 1) for r in rates] for who, rates in by.items()} for name, by in figures.items()
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scanner.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _enriched(data: bytes, number: int) -> bytes:
    """The header of a scanner: private groups and three nested sequences."""
    dataset = dcmread(io.BytesIO(data))
    rng = np.random.default_rng(number)
    for block in range(10):
        private = dataset.private_block(0x0019 + 2 * block, "SYNTHETIC", create=True)
        for element in range(20):
            private.add_new(element, "DS", f"{rng.normal():.6f}")
    for keyword in ("ReferencedImageSequence", "SourceImageSequence", "RequestAttributesSequence"):
        items: list[Dataset] = []
        for _ in range(4):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
            items.append(item)
        setattr(dataset, keyword, items)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _rate(way: Callable[[bytes], object], files: list[bytes]) -> float:
    began = time.process_time()
    for data in files:
        way(data)
    return len(files) / (time.process_time() - began)


def _scan_fifteen(data: bytes) -> object:
    attributes = Attributes(scan(data, _TAGS), _WANTED)
    return [attributes.text(keyword, 400) for keyword in FIFTEEN[:-4]] + [attributes.whole(k) for k in FIFTEEN[-4:]]


def _pydicom_fifteen(data: bytes) -> object:
    dataset = dcmread(io.BytesIO(data), stop_before_pixels=True)
    return [str(dataset.get(keyword)) for keyword in FIFTEEN]


def _pydicom_indexed(data: bytes) -> object:
    dataset = dcmread(io.BytesIO(data), stop_before_pixels=True)
    chosen = Dataset()
    for keyword in INDEXED:
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    return chosen.to_json_dict()
