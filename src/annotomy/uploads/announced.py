"""Holds what an upload brings against what its manifest announced, and says how each file of the manifest ended.

An upload brings one file of the manifest (its relative path names it), or it is a pack: an archive that the client made
of many files, whose members are named by their paths.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from blake3 import blake3

from annotomy.archive.store import Incoming, StoreOutcome
from annotomy.errors import Problem
from annotomy.uploads.errors import ContentMismatch, NotInManifest
from annotomy.uploads.manifests import Announced, Ended, EndState
from annotomy.uploads.unfold import source_of


class Announcement:
    """`own_path` is the path of the file that the upload is; None for a pack."""

    def __init__(self, files: dict[str, Announced], own_path: str | None) -> None:
        self._files = files
        self._own = own_path
        self.refused: list[StoreOutcome] = []
        """Members of a pack that never reached the archive."""

    def verify_own(self, path: Path) -> None:
        """Raises ContentMismatch when the whole file is not what was announced. Reads the file: call it in a thread."""
        if self._own is not None:
            _verify(self._files[self._own], path.stat().st_size, _hash_of_file(self._files[self._own], path))

    async def of_pack(self, incoming: AsyncIterator[Incoming]) -> AsyncIterator[Incoming]:
        """The members that the manifest names and whose content is right; the others are noted as refused."""
        async for member in incoming:
            if self._own is None:
                try:
                    await asyncio.to_thread(self._verify_member, member)
                except (ContentMismatch, NotInManifest) as problem:
                    self.refused.append(StoreOutcome(member.name, "refused", problem=problem))
                    continue
            yield member

    def ended(self, outcomes: Iterable[StoreOutcome], problem: Problem | None) -> list[Ended]:
        """A file that was damaged on its way is not ended: it stays missing, so that it is sent again."""
        by_path: dict[str, list[StoreOutcome]] = {}
        for outcome in outcomes:
            name = outcome.name if outcome.name in self._files else source_of(outcome.name)
            by_path.setdefault(self._own or name, []).append(outcome)
        if self._own is not None and problem is not None and not by_path.get(self._own):
            by_path[self._own] = [StoreOutcome(self._own, "refused", problem=problem)]
        return [
            _ended(path, found)
            for path, found in by_path.items()
            if path in self._files and not all(isinstance(one.problem, ContentMismatch) for one in found)
        ]

    def _verify_member(self, member: Incoming) -> None:
        announced = self._files.get(member.name)
        if announced is None:
            raise NotInManifest("The manifest does not name this member of the pack.")
        if member.path is not None:
            _verify(announced, member.path.stat().st_size, _hash_of_file(announced, member.path))
            return
        assert member.data is not None, "an incoming file has data or a path"
        digest = hashlib.sha256(member.data) if announced.sha256 else blake3(member.data)
        _verify(announced, len(member.data), digest.hexdigest())


def _ended(path: str, outcomes: list[StoreOutcome]) -> Ended:
    """A file that became several instances (NIfTI) is stored when any of them is new."""
    states: set[EndState] = {outcome.state for outcome in outcomes}
    ranked: tuple[EndState, ...] = ("stored", "already", "used", "refused")
    state: EndState = next(one for one in ranked if one in states)
    chosen = next(outcome for outcome in outcomes if outcome.state == state)
    return Ended(
        path,
        state,
        chosen.study_instance_uid or None,
        chosen.sop_instance_uid or None,
        chosen.problem.to_json() if chosen.problem else None,
        chosen.instance_id,
    )


def _verify(announced: Announced, size: int, digest: str) -> None:
    if size != announced.size or digest != (announced.blake3 or announced.sha256):
        raise ContentMismatch("The file is not what the manifest announced.")


def _hash_of_file(announced: Announced, path: Path) -> str:
    if announced.blake3 is not None:
        return blake3().update_mmap(path).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
