"""Volumes that are worked on, kept open: in anonymous memory of this HTTP process, the least used closed first.

A volume is known by the instances that it was made of, so that nobody is given one with slices that they do not see.
"""

import asyncio
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from annotomy.actor import Actor
from annotomy.archive.retrieve import InstanceLocation
from annotomy.archive.volume import LoadedVolume, load_volume, volume_instances
from annotomy.errors import Unavailable
from annotomy.services import Services

KEPT_BYTES = 384 << 20
"""Of one HTTP process; one volume that is larger is kept alone."""


@dataclass(frozen=True, slots=True)
class SharedVolume:
    """`descriptor` is the user's own and theirs to close."""

    descriptor: int
    dtype: str
    shape_kji: tuple[int, int, int]
    affine_lps: NDArray[np.float64]

    @property
    def spacing_kji(self) -> tuple[float, float, float]:
        """Millimetres between voxel centres."""
        i, j, k = np.linalg.norm(self.affine_lps[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape_kji)) * np.dtype(self.dtype).itemsize


class OpenVolumes:
    """Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, SharedVolume] = OrderedDict()

    async def get(self, services: Services, actor: Actor, series_instance_uid: str) -> SharedVolume:
        """With a descriptor to close. Raises NotFound, or a VolumeProblem that names what is wrong."""
        async with services.db.read(actor) as tx:
            seen = await volume_instances(tx, series_instance_uid)
        key = _key(seen)
        known = self._take(key)
        if known is not None:
            return known
        loaded = await load_volume(services, actor, series_instance_uid)
        if {plane.sop_instance_uid for plane in loaded.source.planes} != {at.sop_instance_uid for at in seen}:
            raise Unavailable("The series changed while it was opened. Ask again.")
        shared = await asyncio.to_thread(_share, loaded)
        self._keep(key, shared)
        taken = self._take(key)
        assert taken is not None, "what is kept last is closed last"
        return taken

    def _take(self, key: bytes) -> SharedVolume | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return SharedVolume(os.dup(found.descriptor), found.dtype, found.shape_kji, found.affine_lps)

    def _keep(self, key: bytes, volume: SharedVolume) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._kept[key] = volume
            gone = [before] if before is not None else []
            while len(self._kept) > 1 and sum(one.size for one in self._kept.values()) > KEPT_BYTES:
                gone.append(self._kept.popitem(last=False)[1])
        for one in gone:
            os.close(one.descriptor)


def _key(seen: list[InstanceLocation]) -> bytes:
    return blake3("\n".join(f"{at.sop_instance_uid} {at.blob_address}" for at in seen).encode()).digest()


def _share(loaded: LoadedVolume) -> SharedVolume:
    values = loaded.volume.values
    whole = np.rint(values)
    if np.array_equal(whole, values) and values.min() >= -32768 and values.max() <= 32767:
        values = whole.astype(np.int16)  # as scanners made them, in half the memory
    descriptor = os.memfd_create("volume")
    data = np.ascontiguousarray(values).data.cast("B")
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + (1 << 30)], done)
    slices, rows, columns = values.shape
    return SharedVolume(descriptor, values.dtype.str, (slices, rows, columns), loaded.volume.affine_lps)
