"""The model process: `python -m annotomy.inference.runners.child SOCKET PARENT MEMORY_BYTES`, started by isolated.py.

It limits itself before it loads anything, ends with its parent, keeps what it opened, and answers until the socket closes.
"""

import ctypes
import importlib
import mmap
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable

import msgspec
import numpy as np

from annotomy.inference.runners.isolated import MESSAGE_BYTES, Answer, Done, Failed, Progress, Refused, Request
from annotomy.ports import ModelRefusal, ModelRunner, Volume

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def main() -> None:
    descriptor, parent, memory_bytes = (int(word) for word in sys.argv[1:4])
    _end_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the patient's image
    conversation = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, _, _ = socket.recv_fds(conversation, MESSAGE_BYTES, 2)
        if not message:
            return
        answer = _answer(conversation, msgspec.json.decode(message, type=Request), *descriptors)
        conversation.send(msgspec.json.encode(answer))


def _end_with(parent: int) -> None:
    """The kernel kills this process when the parent dies, whatever native code it is in then."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        sys.exit(0)


def _answer(conversation: socket.socket, request: Request, values: int, labels: int) -> Answer:
    try:
        return _run(request, values, labels, lambda share: _tell(conversation, share))
    except ModelRefusal as refusal:
        return Refused(refusal.slug, refusal.detail)
    except Exception as error:  # noqa: BLE001 - a model's code may raise anything; it is told by its kind
        frames = traceback.extract_tb(error.__traceback__)
        kind = "MemoryError" if _is_out_of_memory(error) else type(error).__name__
        return Failed(kind, [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]])
    finally:
        os.close(values)
        os.close(labels)


def _is_out_of_memory(error: Exception) -> bool:
    """ONNX Runtime tells a failed allocation by an exception of its own."""
    return isinstance(error, MemoryError) or "bad allocation" in str(error) or "bad_alloc" in str(error)


def _run(request: Request, values: int, labels: int, report: Callable[[float], None]) -> Done:
    runner = _runner(request.factory, request.name, request.threads)
    slices, rows, columns = request.shape_kji
    # A view of the shared pages, without a copy. The mapping lives as long as anything holds the view.
    shared = mmap.mmap(values, slices * rows * columns * 4, prot=mmap.PROT_READ)
    voxels = np.frombuffer(shared, np.float32).reshape(request.shape_kji)
    volume = Volume(voxels, np.array(request.affine_lps, np.float64), request.modality, request.body_part)
    output = runner.predict(volume, report)
    if output.labels.dtype != np.uint8 or output.labels.shape != request.shape_kji:
        raise ValueError("the labels are no uint8 array of the volume's shape")
    with mmap.mmap(labels, output.labels.size) as answered:
        answered.write(np.ascontiguousarray(output.labels).data)
    quality = {name: float(number) for name, number in output.quality.items() if np.isfinite(number)}
    return Done(list(output.flags), quality)


_opened: dict[tuple[str, str, int], ModelRunner] = {}


def _runner(factory: str, name: str, threads: int) -> ModelRunner:
    key = (factory, name, threads)
    if key not in _opened:
        module, _, function = factory.partition(":")
        _opened[key] = getattr(importlib.import_module(module), function)(name, threads)
    return _opened[key]


def _tell(conversation: socket.socket, share: float) -> None:
    conversation.send(msgspec.json.encode(Progress(min(max(float(share), 0.0), 1.0))))


if __name__ == "__main__":
    main()
