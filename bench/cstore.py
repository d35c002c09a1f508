"""C-STORE of new CT slices of 512 x 512 over 1 and 4 associations, C-GET and C-MOVE of a series; beside Orthanc."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import corpus
from bench.dicom_sender import store_all
from bench.measure import Comparison, Sample, cpu_seconds
from bench.servers import MOVER, PeerMissing, Server, orthanc, ours

INSTANCES = 200
STORESCU_INSTANCES = 60
SERIES_INSTANCES = 100
CALLING = "BENCHSCU"


def run(runs: int, alone: bool) -> None:
    _dcmtk("storescu")
    with ExitStack() as stack:
        servers = [stack.enter_context(ours(dicom=True))]
        if not alone:
            servers.append(stack.enter_context(orthanc(dicom=True)))
        comparison = Comparison(
            "cstore",
            servers,
            "a request is one instance of 0.5 MB that the server has never seen; both sync to disk before they answer; "
            "`steady` is a sender that never stalls, `storescu`, `getscu` and `movescu` are Debian's dcmtk, which leaves Nagle on",
        )
        comparison.alternate(runs, measures(iter(range(1, 1_000_000))))
        comparison.finish()


def measures(salts: Iterator[int], scale: float = 1) -> list[tuple[str, Callable[[Server, int], Sample]]]:
    """Of C-STORE and C-GET; `scale` makes them shorter."""

    def steady(associations: int) -> Callable[[Server, int], Sample]:
        count = int(INSTANCES * scale)
        return lambda server, _: store_all(
            server, corpus.study(next(salts), instances=count, size=512), associations=associations
        )

    def storescu(associations: int) -> Callable[[Server, int], Sample]:
        count = int(STORESCU_INSTANCES * scale)
        return lambda server, _: _storescu(server, next(salts), associations, count)

    fetched = int(SERIES_INSTANCES * scale)
    kinds = [(f"steady, {n} associations", steady(n)) for n in (1, 4)]
    kinds += [(f"storescu, {n} associations", storescu(n)) for n in (1, 4)]
    kinds.append(("getscu, one series", lambda server, _: _fetched(server, next(salts), "getscu", fetched)))
    kinds.append(("movescu, one series", lambda server, _: _fetched(server, next(salts), "movescu", fetched)))
    return kinds


def _storescu(server: Server, salt: int, associations: int, count: int) -> Sample:
    instances = corpus.study(salt, instances=count, size=512)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(n) for n in range(associations)]
        for folder in folders:
            folder.mkdir()
        for number, instance in enumerate(instances):
            (folders[number % associations] / f"{number}.dcm").write_bytes(instance.data)
        commands = [
            [_dcmtk("storescu"), *_titles(server), "-R", "--max-pdu", "131072", "+sd", str(folder)]
            for folder in folders
        ]
        return _timed(server, commands, len(instances), sent_bytes=sum(len(one.data) for one in instances))


def _fetched(server: Server, salt: int, program: str, count: int) -> Sample:
    """The series is stored first, which is not measured."""
    instances = corpus.study(salt, instances=count, size=512)
    store_all(server, instances, associations=1)
    with tempfile.TemporaryDirectory() as name:
        keys = ["-S", "-k", "0008,0052=SERIES", "-k", f"0020,000d={instances[0].study_instance_uid}"]
        keys += ["-k", f"0020,000e={instances[0].series_instance_uid}", "-od", name, "+B", "--max-pdu", "131072"]
        if program == "movescu":
            keys += ["-aem", MOVER, "--port", str(server.mover_port)]
        command = [_dcmtk(program), *keys, *_titles(server)]
        # movescu writes into the folder that it is started in.
        sample = _timed(
            server, [command], len(instances), folder=name, received_bytes=sum(len(one.data) for one in instances)
        )
        found = len(list(Path(name).iterdir()))
        if found != len(instances):
            raise AssertionError(f"{server.name}: {program} brought {found} of {len(instances)}")
        return sample


def _dcmtk(program: str) -> str:
    """pynetdicom has programs of the same names, in the environment that this runs in."""
    ours = Path(sys.executable).parent
    others = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != ours]
    found = shutil.which(program, path=os.pathsep.join(others))
    if found is None:
        raise PeerMissing("dcmtk")
    return found


def _titles(server: Server) -> list[str]:
    return ["-aet", CALLING, "-aec", server.ae_title, server.host, str(server.dicom_port)]


def _timed(
    server: Server,
    commands: list[list[str]],
    instances: int,
    *,
    sent_bytes: int = 0,
    received_bytes: int = 0,
    folder: str | None = None,
) -> Sample:
    """A process for each command; the latency of each instance is not seen, so that the mean stands for it."""
    before, began = cpu_seconds(server), time.perf_counter()
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder) for command in commands
    ]
    for process in processes:
        out, _ = process.communicate()
        if process.returncode:
            raise AssertionError(f"{server.name}: {out[-300:]!r}")
    seconds, cpu = time.perf_counter() - began, cpu_seconds(server) - before
    mean_ms = 1000 * seconds * len(commands) / instances
    return Sample(seconds, cpu, [mean_ms] * instances, received_bytes, sent_bytes)
