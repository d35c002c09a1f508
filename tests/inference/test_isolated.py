"""A model in its own process: what it does there harms nothing but its own prediction."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from annotomy.errors import Problem
from annotomy.inference.errors import ModelCrashed, ModelFailed, ModelOutOfMemory, ModelTimedOut
from annotomy.inference.runners.isolated import IsolatedRunner, ModelProcess
from annotomy.ports import ModelRefusal, Volume
from annotomy.settings import Settings
from tests.inference.fake_models import FACTORY, fake_card
from tests.support.serve import wait_until

LIMITS = Settings.from_environment({}).models
MEMORY_BYTES = 2 << 30


def ignore(_: float) -> None:
    return None


def ramp(slices: int = 4) -> Volume:
    values = np.arange(slices * 6 * 5, dtype=np.float32).reshape(slices, 6, 5)
    return Volume(values, np.diag([0.5, 0.5, 2.0, 1.0]), "CT", "")


@pytest.fixture
def process() -> Iterator[ModelProcess]:
    made = ModelProcess(msgspec.structs.replace(LIMITS, memory_bytes=MEMORY_BYTES))
    yield made
    made.close()


def runner(process: ModelProcess, name: str) -> IsolatedRunner:
    return IsolatedRunner(process, fake_card(name), FACTORY)


def children() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if "annotomy.inference.runners.child" in child.cmdline()
    ]


def test_volume_and_mask_travel_exactly(process: ModelProcess) -> None:
    shares: list[float] = []
    volume = ramp()
    found = runner(process, "well behaved").predict(volume, shares.append)
    assert np.array_equal(found.labels, (volume.values >= 60).astype(np.uint8) + (volume.values >= 108))
    assert found.flags == ("made-for-tests",)
    assert found.quality == {"low": 0.0, "process": 4.0}
    assert shares[-1] == 1.0
    assert set(shares) <= {0.0, 0.25, 1.0}


def test_the_process_stays_for_the_next_prediction_and_after_a_refusal(process: ModelProcess) -> None:
    runner(process, "well behaved").predict(ramp(), ignore)
    before = children()
    with pytest.raises(ModelRefusal) as refusal:
        runner(process, "refuses").predict(ramp(), ignore)
    assert refusal.value.slug == "anatomy-not-recognised"
    runner(process, "well behaved").predict(ramp(7), ignore)
    assert children() == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raises", ModelFailed),
        ("crashes", ModelCrashed),
        ("eats memory", ModelOutOfMemory),
        ("answers another shape", ModelFailed),
        ("answers unknown labels", ModelFailed),
    ],
)
def test_a_broken_model_is_told_and_the_next_prediction_runs(
    process: ModelProcess, name: str, problem: type[Problem]
) -> None:
    with pytest.raises(problem):
        runner(process, name).predict(ramp(), ignore)
    assert runner(process, "well behaved").predict(ramp(), ignore).labels.any()


def test_an_endless_model_is_stopped() -> None:
    process = ModelProcess(msgspec.structs.replace(LIMITS, timeout_s=1))
    with pytest.raises(ModelTimedOut):
        runner(process, "never ends").predict(ramp(), ignore)
    assert not children()


def test_a_raising_report_stops_a_model_that_says_nothing(process: ModelProcess) -> None:
    class Stop(Exception):
        pass

    calls: list[float] = []

    def stop(share: float) -> None:
        calls.append(share)
        if calls.count(0.25) == 3:  # said once, then told again while nothing comes
            raise Stop

    with pytest.raises(Stop):
        runner(process, "never ends").predict(ramp(), stop)
    assert not children()


def test_a_killed_model_process_is_a_crash(process: ModelProcess) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(runner(process, "never ends").predict, ramp(), lambda share: begun.set())
        assert begun.wait(30)
        [pid] = children()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelCrashed) as crash:
            running.result(30)
    assert "SIGKILL" in crash.value.detail


def test_predictions_take_turns(process: ModelProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waiting = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        begun = threading.Event()
        first = threads.submit(runner(process, f"waits until {gate}").predict, ramp(), lambda share: begun.set())
        assert begun.wait(30)
        second = threads.submit(runner(process, "well behaved").predict, ramp(), lambda share: waiting.set())
        assert waiting.wait(30)  # told of its waiting, so that it can be cancelled
        assert not second.done()
        gate.touch()
        assert first.result(30).labels.any()
        assert second.result(30).labels.any()


def test_the_model_process_dies_with_its_parent() -> None:
    code = (
        "import sys; from annotomy.inference.runners.isolated import *; from annotomy.settings import Settings\n"
        "from tests.inference.test_isolated import ramp, runner\n"
        "process = ModelProcess(Settings.from_environment({}).models)\n"
        "def tell(share): print(process._child.pid, file=sys.stderr, flush=True)\n"
        "runner(process, 'never ends').predict(ramp(), tell)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        child = int(parent.stderr.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    wait_until(lambda: not psutil.pid_exists(child), "the model process is gone")


def test_the_model_process_knows_no_secret_of_ours(process: ModelProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOTOMY_DATABASE_URL", "postgresql://user:secret@host/db")
    runner(process, "well behaved").predict(ramp(), ignore)
    [pid] = children()
    assert not [name for name in psutil.Process(pid).environ() if name.startswith("ANNOTOMY_")]


def test_a_closed_process_starts_no_other(process: ModelProcess) -> None:
    runner(process, "well behaved").predict(ramp(), ignore)
    process.close()
    with pytest.raises(ModelCrashed):
        runner(process, "well behaved").predict(ramp(), ignore)
    assert not children()


def test_an_http_process_imports_no_network_runtime() -> None:
    code = (
        "import sys, annotomy.app; from annotomy.inference.runners.installed import installed_cards\n"
        "assert [card.name for card in installed_cards()] == ['head', 'hippocampus']\n"
        "print([name for name in ('onnxruntime', 'scipy.ndimage', 'cc3d') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
