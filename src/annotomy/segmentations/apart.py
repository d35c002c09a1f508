"""Heavy work on masks in a process of its own: it needs libraries that no server process loads, and may take long.

A child for each task: it reads the task from its standard input, answers on its output and ends. Bricks travel as they
are stored, nothing is pickled, and the child inherits no secret, no database and no descriptor.
"""

import asyncio
import sys
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.errors import Problem, Unavailable
from annotomy.segmentations.agreement import Agreement, agreement
from annotomy.segmentations.bricks import Brick, BrickKey, MaskSet
from annotomy.segmentations.measures import Measures, measures
from annotomy.segmentations.tools import Tool, apply

WALL_S = 120.0
"""A task that has not answered by then is ended."""
AT_ONCE = 1
"""Children of one process: each takes memory for a mask that is spread out."""
MAX_WAITING = 8
MAX_VOXELS = 1 << 30
"""Of the grid: 1 GiB for each mask that is spread out at worst."""


class MasksTooLarge(Problem):
    """The segmentation's grid has more voxels than are worked on at once; `limit_voxels` says how many."""

    slug = "masks-too-large"
    title = "The masks are too large for this"
    status = 413


class PackedBrick(msgspec.Struct, frozen=True, array_like=True):
    segment_number: int
    brick_index: int
    address: bytes
    data: bytes
    counts: tuple[int, ...]


class PackedMasks(msgspec.Struct, frozen=True):
    shape_kji: tuple[int, int, int]
    bricks: list[PackedBrick]


class Compare(msgspec.Struct, frozen=True, tag=True):
    one: PackedMasks
    number: int
    other: PackedMasks
    other_number: int
    affine_lps: list[float]
    tolerance_mm: float


class Measure(msgspec.Struct, frozen=True, tag=True):
    masks: PackedMasks
    number: int
    affine_lps: list[float]


class Change(msgspec.Struct, frozen=True, tag=True):
    masks: PackedMasks
    number: int
    affine_lps: list[float]
    tool: Tool


Task = Compare | Measure | Change


async def compare(
    one: MaskSet, number: int, other: MaskSet, other_number: int, affine_lps: list[float], tolerance_mm: float
) -> Agreement:
    """Raises MasksTooLarge and Unavailable, as all of these do."""
    task = Compare(
        _packed(one, [number]), number, _packed(other, [other_number]), other_number, affine_lps, tolerance_mm
    )
    return msgspec.msgpack.decode(await _ask(task, one.shape_kji), type=Agreement)


async def measure(masks: MaskSet, number: int, affine_lps: list[float]) -> Measures:
    task = Measure(_packed(masks, [number]), number, affine_lps)
    return msgspec.msgpack.decode(await _ask(task, masks.shape_kji), type=Measures)


async def change(
    masks: MaskSet, number: int, affine_lps: list[float], tool: Tool, others: list[int]
) -> dict[BrickKey, Brick]:
    """The bricks of the segment afterwards."""
    task = Change(_packed(masks, [number, *others]), number, affine_lps, tool)
    return dict(_unpacked(msgspec.msgpack.decode(await _ask(task, masks.shape_kji), type=PackedMasks)).bricks)


def _packed(masks: MaskSet, numbers: list[int]) -> PackedMasks:
    bricks = [PackedBrick(*key, b.address, b.data, b.counts) for key, b in masks.bricks.items() if key[0] in numbers]
    return PackedMasks(masks.shape_kji, bricks)


def _unpacked(packed: PackedMasks) -> MaskSet:
    bricks = {(b.segment_number, b.brick_index): Brick(b.address, b.data, b.counts) for b in packed.bricks}
    return MaskSet(packed.shape_kji, bricks)


_turn: dict[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, list[None]]] = {}


async def _ask(task: Task, shape_kji: tuple[int, int, int]) -> bytes:
    if shape_kji[0] * shape_kji[1] * shape_kji[2] > MAX_VOXELS:
        raise MasksTooLarge("The masks have more voxels than are worked on at once.", limit_voxels=MAX_VOXELS)
    turn, waiting = _turn.setdefault(asyncio.get_running_loop(), (asyncio.Semaphore(AT_ONCE), []))
    if len(waiting) >= MAX_WAITING:
        raise Unavailable("Too many calculations on masks wait for their turn.")
    waiting.append(None)
    try:
        async with turn:
            return await _run(await asyncio.to_thread(msgspec.msgpack.encode, task))
    finally:
        waiting.pop()


async def _run(task: bytes) -> bytes:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-m", "annotomy.segmentations.apart",
        env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd="/",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # a trace may quote values
    )  # fmt: skip
    try:
        async with asyncio.timeout(WALL_S):
            answer, _ = await child.communicate(task)
    except TimeoutError as error:
        raise Unavailable(f"The calculation took longer than {WALL_S:.0f} s.") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise RuntimeError(f"the calculation on masks ended with {child.returncode}")
    return answer


# ---------------------------------------------------------------------------------------------------------- in the child
def answer_to(task: Task) -> Any:
    affine: NDArray[np.float64] = np.array(task.affine_lps).reshape(4, 4)
    match task:
        case Compare():
            return agreement(
                _unpacked(task.one), task.number, _unpacked(task.other), task.other_number, affine, task.tolerance_mm
            )
        case Measure():
            return measures(_unpacked(task.masks), task.number, affine)
        case Change():
            masks = _unpacked(task.masks)
            made = MaskSet(masks.shape_kji, apply(task.tool, masks, task.number, affine))
            return _packed(made, [task.number])


def main() -> None:
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer_to(task)))


if __name__ == "__main__":
    main()
