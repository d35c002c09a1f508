"""Runs models in a process of their own: a crash, an endless loop or too much memory costs one prediction, never the worker.

`ModelProcess` is started by the first prediction and stays, with its networks open. The conversation is a socket that
keeps message boundaries; volume and mask travel in anonymous memory whose descriptors are passed along, so nothing is
pickled, nothing lies on disk, and the kernel frees everything whoever dies. What comes back is checked here: it comes from
code that may be broken.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from annotomy.inference.errors import ModelCrashed, ModelFailed, ModelOutOfMemory, ModelTimedOut
from annotomy.ports import ModelCard, ModelOutput, ModelRefusal, Volume
from annotomy.settings import ModelSettings

log = structlog.get_logger(__name__)

MESSAGE_BYTES = 128 << 10
"""Descriptions and small numbers; voxels never travel in a message."""
POLL_S = 0.25
"""How often `report` is called though the model says nothing, so that a cancel takes effect soon."""
IO_PIECE_BYTES = 1 << 30
"""One read or write of Linux moves at most 2 GiB."""


class Request(msgspec.Struct, frozen=True, tag="predict"):
    """Descriptors with it: the float32 values, and room for the uint8 labels."""

    factory: str
    """`module:function`; the function takes name and threads and returns a ModelRunner."""
    name: str
    threads: int
    shape_kji: tuple[int, int, int]
    affine_lps: list[list[float]]
    modality: str
    body_part: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    share: float


class Done(msgspec.Struct, frozen=True, tag="done"):
    flags: list[str]
    quality: dict[str, float]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    slug: str
    detail: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`trace` names files and lines, never values."""

    kind: str
    trace: list[str]


Answer = Progress | Done | Refused | Failed


class ModelProcess:
    """The one child process of this process that runs models, one prediction at a time. Safe to use from threads."""

    def __init__(self, limits: ModelSettings) -> None:
        self._limits = limits
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._conversation: socket.socket | None = None
        self._closed = False

    def predict(self, card: ModelCard, factory: str, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        """Raises ModelRefusal, a problem of inference/errors.py, or whatever `report` raises, which stops the model."""
        while not self._turn.acquire(timeout=POLL_S):
            report(0.0)
        try:
            return self._predict(card, factory, volume, report)
        except ModelRefusal:
            raise
        except BaseException:
            self._end()  # it may still be computing, or be in no state to go on
            raise
        finally:
            self._turn.release()

    def close(self) -> None:
        """Ends the child, in mid-prediction too."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._turn:
            self._end()

    def _predict(self, card: ModelCard, factory: str, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        conversation = self._started()
        slices, rows, columns = volume.values.shape
        request = Request(
            factory=factory,
            name=card.name,
            threads=self._limits.threads,
            shape_kji=(slices, rows, columns),
            affine_lps=volume.affine_lps.tolist(),
            modality=volume.modality,
            body_part=volume.body_part,
        )
        with _memory("values", volume.values.nbytes) as values, _memory("labels", volume.values.size) as labels:
            _write(values, np.ascontiguousarray(volume.values, np.float32))
            try:
                socket.send_fds(conversation, [msgspec.json.encode(request)], [values, labels])
            except (BrokenPipeError, ConnectionError) as error:
                raise self._crashed() from error
            answer = self._followed(conversation, report)
            if isinstance(answer, Refused):
                raise ModelRefusal(answer.slug, answer.detail)
            if isinstance(answer, Failed):
                raise _failure(card, answer)
            found = _read(labels, (slices, rows, columns))
        _require_known_labels(card, found)
        return ModelOutput(found, tuple(answer.flags), answer.quality)

    def _followed(self, conversation: socket.socket, report: Callable[[float], None]) -> Done | Refused | Failed:
        deadline = time.monotonic() + self._limits.timeout_s
        share = 0.0
        while True:
            if time.monotonic() > deadline:
                raise ModelTimedOut(
                    f"The model was stopped after {self._limits.timeout_s} s.", limit_s=self._limits.timeout_s
                )
            try:
                message = conversation.recv(MESSAGE_BYTES)
            except TimeoutError:
                report(share)
                continue
            except ConnectionError:
                message = b""
            if not message:
                raise self._crashed()
            try:
                answer = msgspec.json.decode(message, type=Answer)
            except msgspec.MsgspecError as error:
                raise ModelFailed("The model's process answered something that is no answer.") from error
            if not isinstance(answer, Progress):
                return answer
            share = answer.share
            report(share)

    def _started(self) -> socket.socket:
        if self._closed:
            raise ModelCrashed("The worker was ending.")
        if self._child is not None and self._child.poll() is None and self._conversation is not None:
            return self._conversation
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            limits = (str(theirs.fileno()), str(os.getpid()), str(self._limits.memory_bytes))
            self._child = subprocess.Popen(
                [sys.executable, "-m", "annotomy.inference.runners.child", *limits],
                pass_fds=[theirs.fileno()],
                # Nothing of our environment: it may name the database with its password.
                env={"OMP_NUM_THREADS": str(self._limits.threads), "OPENBLAS_NUM_THREADS": str(self._limits.threads)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        ours.settimeout(POLL_S)
        self._conversation = ours
        log.info("model_process.started", pid=self._child.pid)
        return ours

    def _crashed(self) -> ModelCrashed:
        assert self._child is not None
        status = self._child.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        log.warning("model_process.died", status=status)
        return ModelCrashed(f"The model's process ended with {how}.")

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


@dataclass(frozen=True, slots=True)
class IsolatedRunner:
    """A `ModelRunner` whose work is done in the model process; describing it imports nothing heavy."""

    process: ModelProcess
    card: ModelCard
    factory: str

    def describe(self) -> ModelCard:
        return self.card

    def predict(self, volume: Volume, report: Callable[[float], None]) -> ModelOutput:
        """`report` is called at least every quarter of a second, with the last share again when there is no news."""
        return self.process.predict(self.card, self.factory, volume, report)


def _failure(card: ModelCard, answer: Failed) -> ModelFailed | ModelOutOfMemory:
    log.warning("model.failed", model=card.name, version=card.version, kind=answer.kind, trace=answer.trace)
    if answer.kind == "MemoryError":
        return ModelOutOfMemory("The model wanted more memory than it is given.")
    return ModelFailed(f"The model raised {answer.kind}.")


def _require_known_labels(card: ModelCard, labels: NDArray[np.uint8]) -> None:
    counts = np.bincount(labels.reshape(-1), minlength=256)
    unknown = set(np.flatnonzero(counts).tolist()) - {0, *(label.number for label in card.labels)}
    if unknown:
        raise ModelFailed("The model answered labels that its card does not name.")


@contextlib.contextmanager
def _memory(name: str, size: int) -> Generator[int]:
    descriptor = os.memfd_create(name)
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, values: NDArray[np.float32]) -> None:
    data = values.data.cast("B")
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + IO_PIECE_BYTES], done)


def _read(descriptor: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A copy: the other side could still change, or cut short, what it shares."""
    found = np.empty(shape, np.uint8)
    data = found.data.cast("B")
    done = 0
    while done < len(data):
        count = os.preadv(descriptor, [data[done : done + IO_PIECE_BYTES]], done)
        if count == 0:
            raise ModelFailed("The model answered fewer voxels than the series has.")
        done += count
    return found
