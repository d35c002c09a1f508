"""WADO-RS: a CT series of 120 slices whole, its metadata, single instances, frames, rendered; beside Orthanc."""

from collections.abc import Callable
from contextlib import ExitStack

from bench import corpus
from bench.measure import Comparison, Request, Sample, expect_bytes, send_all
from bench.servers import Server
from bench.stow import MULTIPART_JSON, archives, store_path, stored

SLICES = 120
SIZE = 512
SLICE_BYTES = SIZE * SIZE * 2
SALT = 8
INSTANCE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


def run(runs: int, alone: bool) -> None:
    slices = corpus.study(SALT, instances=SLICES, size=SIZE)
    series = f"/studies/{slices[0].study_instance_uid}/series/{slices[0].series_instance_uid}"

    def one(n: int) -> str:
        return f"{series}/instances/{slices[n * 7 % SLICES].sop_instance_uid}"

    kinds: dict[str, tuple[int, Callable[[int], Request]]] = {
        "whole series": (2, lambda _: _get(series, INSTANCE, SLICES * SLICE_BYTES)),
        "metadata of the series": (3, lambda _: _get(f"{series}/metadata", "application/dicom+json", SLICES * 1000)),
        "one instance": (100, lambda n: _get(one(n), INSTANCE, SLICE_BYTES)),
        "one frame": (100, lambda n: _get(f"{one(n)}/frames/1", FRAMES, SLICE_BYTES)),
        "one instance rendered": (30, lambda n: _get(f"{one(n)}/rendered", "image/jpeg", 1000)),
    }
    with ExitStack() as stack:
        servers = archives(stack, alone)
        for server in servers:
            body = corpus.multipart(slices)
            send_all(server, [Request("POST", store_path(server), stored(SLICES), body, MULTIPART_JSON)])
        comparison = Comparison(
            "wado", servers, f"{SLICES} slices of {SIZE} x {SIZE}, 16 bit, uncompressed; the page cache is warm"
        )
        comparison.alternate(
            runs, [(f"{kind}, {c} connections", _fetch(*what, c)) for kind, what in kinds.items() for c in (1, 4)]
        )
        comparison.finish()


def _get(path: str, accept: str, at_least_bytes: int) -> Request:
    return Request("GET", path, expect_bytes(at_least_bytes), headers={"Accept": accept})


def _fetch(count: int, make: Callable[[int], Request], connections: int) -> Callable[[Server, int], Sample]:
    def measure(server: Server, run: int) -> Sample:
        total = max(count, connections)
        return send_all(server, [make(run * 31 + n) for n in range(total)], connections=connections)

    return measure
