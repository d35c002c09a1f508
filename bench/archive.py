"""The archive's promises: QIDO-RS, WADO-RS, STOW-RS, C-STORE, C-GET, C-MOVE beside Orthanc and nginx, each with its bar, met or
missed; and a million series asked over HTTP. `--short` is a small run that only shows that it works, `--only GROUP,...` a part.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench import corpus, cstore, million
from bench.measure import Comparison, Request, Sample, expect_bytes, expect_json, memory_mb, send_all
from bench.servers import Server, nginx, orthanc, ours
from bench.stow import MULTIPART_JSON, store_new, store_path, stored

GROUPS = ("qido", "wado", "stow", "cstore", "million")
QIDO_STUDIES = 2000
QIDO_SERIES, QIDO_INSTANCES = 3, 8
"""Of each study: some 50,000 instances in all, which Orthanc takes in within some four minutes."""
SLICES = 300
MEMORY_MB = 600
INSTANCE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
JSON = "application/dicom+json"

Measure = tuple[str, Callable[[Server, int], Sample]]


@dataclass(frozen=True)
class Bar:
    """Our figure of a measure, divided by the peer's, is to be at least or at most so much."""

    measure: str
    figure: str
    kind: Literal["at least", "at most"]
    bar: float
    peer: str = "orthanc"


BARS = [
    *(Bar(f"storescu, {n} associations", "requests_per_s", "at least", bar) for n, bar in ((1, 8), (4, 2.5))),
    *(Bar(f"steady, {n} associations", "requests_per_s", "at least", 2) for n in (1, 4)),
    *(Bar(f"steady, {n} associations", "cpu_ms_per_request", "at most", 0.5) for n in (1, 4)),
    *(Bar(f"stow of 50 CT, {n} connections", "sent_mb_per_s", "at least", 2) for n in (1, 4)),
    *(Bar(f"stow of 50 CT, {n} connections", "cpu_ms_per_request", "at most", 0.6) for n in (1, 4)),
    Bar("stow of 50 tiny, 4 connections", "requests_per_s", "at least", 3),
    Bar("stow of 50 tiny, 4 connections", "written_per_byte", "at most", 0.2),
    Bar("metadata of a series, first time, 1 connections", "p50_ms", "at most", 0.05),
    Bar("one frame, 1 connections", "p50_ms", "at most", 0.1),
    Bar("one frame, 8 connections", "requests_per_s", "at least", 10),
    Bar("one frame, 8 connections", "requests_per_s", "at least", 0.4, "nginx"),
    Bar("whole series, 1 connections", "p50_ms", "at most", 0.6),
    Bar("whole series, 1 connections", "first_byte_ms", "at most", 0.3),
    Bar("rendered PNG, first time, 1 connections", "p50_ms", "at most", 0.4),
    Bar("rendered JPEG, first time, 1 connections", "p50_ms", "at most", 0.6),
    Bar("rendered JPEG, again, 1 connections", "p50_ms", "at most", 0.1),
    Bar("getscu, one series", "requests_per_s", "at least", 8),
    Bar("movescu, one series", "requests_per_s", "at least", 8),
]
QIDO_BARS = (("p50_ms", "at most", 0.05, 1), ("requests_per_s", "at least", 25, 8))


def run(runs: int, alone: bool, *, short: bool = False, only: tuple[str, ...] = GROUPS) -> None:
    if unknown := set(only) - set(GROUPS):
        raise SystemExit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    with ExitStack() as stack:
        ours_there = stack.enter_context(ours(dicom=True))
        servers = [ours_there.at("/dicom-web")]
        if not alone:
            servers.append(stack.enter_context(orthanc(dicom=True)))
        notes = "p50 of one connection, rates of several; `first time` is of what was never asked for before"
        comparison = Comparison("archive", servers, notes + ("; a short run, whose figures mean nothing" * short))
        bars, memory, asked = list(BARS), dict[str, float](), dict[str, Any]()

        def watched(measures: list[Measure]) -> list[Measure]:
            """As they are, and how much memory the servers hold after each."""

            def watch(measure: Callable[[Server, int], Sample]) -> Callable[[Server, int], Sample]:
                def measured(server: Server, run: int) -> Sample:
                    sample = measure(server, run)
                    memory[server.name] = max(memory.get(server.name, 0), memory_mb(server))
                    return sample

                return measured

            return [(name, watch(measure)) for name, measure in measures]

        salts = iter(range(1000, 1_000_000))
        if "cstore" in only:
            comparison.alternate(runs, watched(cstore.measures(salts, 0.2 if short else 1)))
        if "stow" in only:
            comparison.alternate(runs, watched(_stow(salts, short)))
        if "wado" in only:
            frame = _wado(runs, short, comparison, servers, watched)
            if not alone:
                with nginx({"frame": frame}) as static:
                    made = Request("GET", "/frame", expect_bytes(len(frame)))
                    kinds = [(f"one frame, {c} connections", _repeat(made, 400, c)) for c in (1, 8)]
                    comparison.alternate(runs, kinds, servers=[static])
        if "qido" in only:
            measures = _qido(servers, QIDO_STUDIES // (50 if short else 1))
            comparison.alternate(runs, watched(measures))
            bars += [
                Bar(name, figure, kind, bar)  # pyright: ignore[reportArgumentType] - literals of the table above
                for name, _ in measures
                for figure, kind, bar, connections in QIDO_BARS
                if name.endswith(f"{connections} connections")
            ]
        if "million" in only:
            asked = million.measure(servers[0], short=short)
        verdicts = _verdicts(bars, comparison.medians())
        comparison.finish(
            verdicts=verdicts,
            memory={"mb": memory, "bar_mb": MEMORY_MB, "met": memory.get("annotomy", 0) <= MEMORY_MB},
            million=asked,
        )
        _print(verdicts, memory, asked)


# -- the measures -----------------------------------------------------------------------------------------------------


def _stow(salts: Iterator[int], short: bool) -> list[Measure]:
    requests = 2 if short else 8
    kinds: list[Measure] = [
        (f"stow of 50 CT, {c} connections", store_new(salts, c, instances=50, requests=requests)) for c in (1, 4)
    ]
    tiny = store_new(salts, 4, size=16, instances=50, requests=4 if short else 40)
    return [*kinds, ("stow of 50 tiny, 4 connections", tiny)]


def _wado(
    runs: int,
    short: bool,
    comparison: Comparison,
    servers: list[Server],
    watched: Callable[[list[Measure]], list[Measure]],
) -> bytes:
    """A frame of the series, for who serves it as a file."""
    count = 30 if short else SLICES
    slices = corpus.study(8, instances=count, size=512, full=True)
    _send(servers, [slices[n : n + 50] for n in range(0, count, 50)])
    series = f"/studies/{slices[0].study_instance_uid}/series/{slices[0].series_instance_uid}"
    # A series for each run, since what was asked for once may be remembered.
    unseen = [corpus.study(20 + n, instances=count, size=64, full=True) for n in range(runs + 1)]
    _send(servers, [one[n : n + 50] for one in unseen for n in range(0, count, 50)])

    def one(n: int) -> str:
        return f"{series}/instances/{slices[n * 7 % count].sop_instance_uid}"

    def first_metadata(server: Server, run: int) -> Sample:
        at = unseen[run][0]
        path = f"/studies/{at.study_instance_uid}/series/{at.series_instance_uid}/metadata"
        return send_all(server, [Request("GET", path, expect_json(200, count=count), headers={"Accept": JSON})])

    def first_picture(kind: str, pictures: int) -> Callable[[Server, int], Sample]:
        def measure(server: Server, run: int) -> Sample:
            # Windows that nobody asked for before.
            paths = [f"{one(n)}/rendered?window={100 * run + n},{400 + run},linear" for n in range(pictures)]
            return send_all(server, [_get(path, f"image/{kind}", 1000) for path in paths])

        return measure

    whole = _get(series, INSTANCE, count * 512 * 512 * 2)
    kinds: list[Measure] = [
        ("whole series, 1 connections", _repeat(whole, 2, 1)),
        ("whole series, 4 connections", _repeat(whole, 4, 4)),
        ("metadata of a series, first time, 1 connections", first_metadata),
        ("metadata of a series, again, 1 connections", _repeat(_get(f"{series}/metadata", JSON, 1000), 5, 1)),
        ("rendered JPEG, first time, 1 connections", first_picture("jpeg", 30)),
        ("rendered PNG, first time, 1 connections", first_picture("png", 30)),
        ("rendered JPEG, again, 1 connections", _repeat(_get(f"{one(0)}/rendered", "image/jpeg", 1000), 100, 1)),
    ]
    for c in (1, 8):
        frames = [_get(f"{one(n)}/frames/1", FRAMES, 512 * 512 * 2) for n in range(50 if short else 400)]
        kinds.append(
            (f"one frame, {c} connections", lambda server, _, c=c, made=frames: send_all(server, made, connections=c))
        )
    comparison.alternate(runs, watched(kinds))
    comparison.alternate(
        runs,
        [("metadata of a series, unchanged, 1 connections", _unchanged(f"{series}/metadata"))],
        servers=servers[:1],
    )
    return slices[0].data[-512 * 512 * 2 :]


def _unchanged(path: str) -> Callable[[Server, int], Sample]:
    def measure(server: Server, _: int) -> Sample:
        tag: list[str] = []
        send_all(server, [Request("GET", path, expect_json(200), on_headers=lambda given: tag.append(given["ETag"]))])
        made = Request("GET", path, _status(304), headers={"If-None-Match": tag[0]})
        return send_all(server, [made] * 50)

    return measure


def _status(wanted: int) -> Callable[[int, bytes], str | None]:
    return lambda status, _: None if status == wanted else f"status {status}"


def _qido(servers: list[Server], studies: int) -> list[Measure]:
    """Ten kinds of question; every answer's number of results is checked."""

    def made(n: int) -> list[corpus.Instance]:
        return corpus.study(7, instances=QIDO_INSTANCES, size=16, series=QIDO_SERIES, number=n, day=_day(n))

    parts = [[one for n in range(first, first + 4) for one in made(n)] for first in range(0, studies, 4)]
    _send(servers, parts)

    def study(n: int) -> str:
        return f"/studies/{corpus.uid(1, 7, n % studies)}"

    page, hundred = min(100, studies), min(100, studies)
    kinds: dict[str, Callable[[int], tuple[str, int | None]]] = {
        "100 studies": lambda _: ("/studies?limit=100", page),
        "100 studies, deep": lambda n: (f"/studies?limit=100&offset={max(0, studies - 200 + n % 100)}", None),
        "all studies": lambda _: (f"/studies?limit={studies}", studies),
        "studies of a patient": lambda n: (f"/studies?PatientID=PATIENT-{n % studies:08d}", 1),
        "studies of a name": lambda n: (f"/studies?PatientName=PATIENT-{n % (studies // hundred):06d}*", None),
        "studies of days and a modality": lambda n: (
            f"/studies?StudyDate={_day(n)}-{_day(n)}&ModalitiesInStudy=CT",
            None,
        ),
        "one study": lambda n: (f"/studies?StudyInstanceUID={corpus.uid(1, 7, n % studies)}", 1),
        "series of a study": lambda n: (f"{study(n)}/series", QIDO_SERIES),
        "instances of a series": lambda n: (
            f"{study(n)}/series/{corpus.uid(2, 7, n % studies * 100)}/instances",
            QIDO_INSTANCES,
        ),
        "100 instances": lambda _: ("/instances?limit=100", 100),
    }

    def ask(make: Callable[[int], tuple[str, int | None]], connections: int) -> Callable[[Server, int], Sample]:
        def measure(server: Server, run: int) -> Sample:
            count = 5 if make is kinds["all studies"] else 40
            asked = [make(run * 331 + n * 7) for n in range(max(count, connections))]
            made = [Request("GET", path, expect_json(200, count=n), headers={"Accept": JSON}) for path, n in asked]
            return send_all(server, made, connections=connections)

        return measure

    return [(f"QIDO, {kind}, {c} connections", ask(make, c)) for kind, make in kinds.items() for c in (1, 8)]


def _day(number: int) -> str:
    return f"20{10 + number // 336 % 12:02d}{number // 28 % 12 + 1:02d}{number % 28 + 1:02d}"


def _send(servers: list[Server], parts: list[list[corpus.Instance]]) -> None:
    for server in servers:
        made = [Request("POST", store_path(server), stored(len(p)), corpus.multipart(p), MULTIPART_JSON) for p in parts]
        send_all(server, made, connections=2)


def _get(path: str, accept: str, at_least_bytes: int) -> Request:
    return Request("GET", path, expect_bytes(at_least_bytes), headers={"Accept": accept})


def _repeat(request: Request, count: int, connections: int) -> Callable[[Server, int], Sample]:
    return lambda server, _: send_all(server, [request] * count, connections=connections)


# -- the bars ---------------------------------------------------------------------------------------------------------


def _verdicts(bars: list[Bar], medians: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """What was measured on both sides."""
    verdicts: list[dict[str, Any]] = []
    for bar in bars:
        servers = medians.get(bar.measure, {})
        if "annotomy" not in servers or not servers.get(bar.peer, {}).get(bar.figure):
            continue
        ours, theirs = servers["annotomy"][bar.figure], servers[bar.peer][bar.figure]
        ratio = ours / theirs
        met = ratio >= bar.bar if bar.kind == "at least" else ratio <= bar.bar
        verdicts.append(asdict(bar) | {"ours": ours, "theirs": theirs, "ratio": ratio, "met": met})
    return verdicts


def _print(verdicts: list[dict[str, Any]], memory: dict[str, float], asked: dict[str, Any]) -> None:
    print()
    for one in verdicts:
        verdict = "met   " if one["met"] else "MISSED"
        print(
            f"{verdict} {one['ratio']:8.3f} {one['kind']} {one['bar']:<6} {one['measure']}: {one['figure']} / {one['peer']}"
        )
    for name, row in asked.get("classes", {}).items():
        print(f"{'met   ' if row['met'] else 'MISSED'} {row['p95_ms']:8.1f} ms p95 of 8, a million series: {name}")
    for name, mb in memory.items():
        print(f"       {mb:8.0f} MB held at most by {name}" + (f", bar {MEMORY_MB}" if name == "annotomy" else ""))
