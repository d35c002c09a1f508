"""The ingest job: verify, walk, store, book. Doing it twice stores nothing twice, since the store operation knows its bytes."""

import asyncio
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from blake3 import blake3

from annotomy.archive.store import Incoming, StoreOutcome, store_instances
from annotomy.errors import Problem
from annotomy.jobs.handlers import HandlerSpec, JobContext
from annotomy.services import Services
from annotomy.uploads.announced import Announcement
from annotomy.uploads.claims import within_quota
from annotomy.uploads.derived import Taken, Takers, take_derived
from annotomy.uploads.errors import ContentMismatch, UploadGone
from annotomy.uploads.ingest import IngestUpload, kind_of, members, next_member
from annotomy.uploads.manifests import Ended, announced_files, book_files
from annotomy.uploads.part_file import part_file, remove
from annotomy.uploads.pictures import GeometryForm
from annotomy.uploads.progress import PROGRESS_S, tell, tell_files
from annotomy.uploads.staged import drop_staged, fetch_staged
from annotomy.uploads.unfold import Unfolding

COPY_BYTES = 4 << 20


async def ingest_upload(services: Services, job: IngestUpload, context: JobContext, *, takers: Takers) -> None:
    async with services.db.read(context.asker) as tx:
        upload = await tx.fetchrow(
            "select project_id, filename, relative_path, sha256, blake3, state, parts, length, manifest_id,"
            " geometry, direct from uploads where id = $1",
            job.upload_id,
        )
    if upload is None or upload["state"] in ("stored", "failed"):
        async with services.db.write(context.asker) as tx:
            await context.finish(tx)
        return
    path = part_file(services, job.upload_id)
    announcement = await _announcement(services, context, upload)
    await context.report(0.05, "verifying")
    outcomes: list[StoreOutcome] = []
    problem: Problem | None = None
    try:
        if upload["parts"]:
            sources = [part_file(services, part) for part in upload["parts"]]
            await asyncio.to_thread(_assemble, path, sources, upload["length"])
        if upload["direct"] == "s3":
            await fetch_staged(services, job.upload_id, path, upload["length"])
        await asyncio.to_thread(_verify, path, upload["sha256"], upload["blake3"])
        if announcement is not None:
            await asyncio.to_thread(announcement.verify_own, path)
        async with services.db.write(context.asker) as tx:
            await tx.execute("update uploads set state = 'ingesting', files_done = 0 where id = $1", job.upload_id)
            await tell(tx, "upload.ingesting", job.upload_id)
        filename = upload["filename"] or "file"
        source = _incoming(path, filename, context)
        if announcement is not None:
            source = announcement.of_pack(source)
        form = msgspec.convert(upload["geometry"], GeometryForm | None)
        unfolding = Unfolding(path, salt=str(upload["project_id"]), filename=filename, form=form)
        over: list[StoreOutcome] = []
        source = within_quota(services, context.asker, job.upload_id, unfolding.unfold(source), over)
        outcomes += await store_instances(
            services, context.asker, upload["project_id"], source, told=_Telling(services, job, context), claimed=True
        )
        outcomes += [*unfolding.told, *over]
    except Problem as error:
        problem = error
    taken = await take_derived(services, context.asker, upload["project_id"], outcomes, takers)
    outcomes = taken.outcomes
    ended: list[Ended] = []
    if announcement is not None:
        outcomes += announcement.refused
        ended = announcement.ended(outcomes, problem)
    if problem is None and not any(outcome.state in ("stored", "already") for outcome in outcomes):
        problem = next((o.problem for o in outcomes if o.problem), None) or Problem("The archive holds no file.")
    await _book(services, job, context, taken, problem, upload["manifest_id"], ended)
    for used in (job.upload_id, *upload["parts"]):
        remove(part_file(services, used))
    if upload["direct"] == "s3":
        await drop_staged(services, job.upload_id)


class _Telling:
    """Writes down what became of files while others are still being stored, so that polling and events tell of each."""

    def __init__(self, services: Services, job: IngestUpload, context: JobContext) -> None:
        self._services, self._job, self._context = services, job, context
        self._at, self._written = time.monotonic(), 0

    async def __call__(self, outcomes: list[StoreOutcome]) -> None:
        if time.monotonic() - self._at < PROGRESS_S:
            return
        stored = sum(one.size for one in outcomes if one.state == "stored")
        rows = [_file_row(self._job.upload_id, n, outcomes[n], None) for n in range(self._written, len(outcomes))]
        async with self._services.db.write(self._context.asker) as tx:
            await tx.executemany(_WRITE_FILE, rows)
            await tx.execute("update uploads set stored_bytes = $2 where id = $1", self._job.upload_id, stored)
            await tell_files(tx, self._job.upload_id, len(outcomes))
        self._at, self._written = time.monotonic(), len(outcomes)


_WRITE_FILE = (
    "insert into upload_files values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (upload_id, ordinal) do update"
    " set path = excluded.path, state = excluded.state, study_instance_uid = excluded.study_instance_uid,"
    " series_instance_uid = excluded.series_instance_uid, sop_instance_uid = excluded.sop_instance_uid,"
    " problem = excluded.problem"
)


def _file_row(upload_id: UUID, number: int, o: StoreOutcome, made: dict[str, Any] | None) -> tuple[Any, ...]:
    return (
        upload_id, number, o.name[:1024], o.state, o.study_instance_uid or None, o.series_instance_uid or None,
        o.sop_instance_uid or None, o.problem.to_json() if o.problem else None, made,
    )  # fmt: skip


async def _announcement(services: Services, context: JobContext, upload: Any) -> Announcement | None:
    if upload["manifest_id"] is None:
        return None
    async with services.db.read(context.asker) as tx:
        files = await announced_files(tx, upload["manifest_id"])
    named = upload["relative_path"] or upload["filename"]
    return Announcement(files, named if named in files else None)


def _assemble(path: Path, sources: list[Path], length: int) -> None:
    """One file of the parts, which stay until the end is booked.

    A second try makes a new file: the first one's bytes may be a blob of the archive by now, under another name.
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as whole:
        for source in sources:
            try:
                with source.open("rb") as part:
                    shutil.copyfileobj(part, whole, COPY_BYTES)
            except FileNotFoundError:
                raise UploadGone("A part of the upload has expired.") from None
        if whole.tell() != length:
            raise UploadGone("A part of the upload has changed.")


def _verify(path: Path, sha256: str | None, blake3_hex: str | None) -> None:
    if blake3_hex is not None and blake3().update_mmap(path).hexdigest() != blake3_hex:
        raise ContentMismatch("The file does not hash to the blake3 that was announced.")
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
    if found.hexdigest() != sha256.lower():
        raise ContentMismatch("The file does not hash to the sha256 that was announced.")


async def _incoming(path: Path, filename: str, context: JobContext) -> AsyncIterator[Incoming]:
    kind = await asyncio.to_thread(kind_of, path)
    if kind not in ("zip", "tar"):
        # A second name may be moved into the archive; the part file's own stays until the end is booked, so that a
        # second try finds it.
        second = path.with_suffix(".link")
        second.unlink(missing_ok=True)
        second.hardlink_to(path)
        yield Incoming(filename, path=second)
        second.unlink(missing_ok=True)
        return
    walk = members(path, kind)
    count = 0
    while (member := await next_member(walk)) is not None:
        count += 1
        if count % 50 == 0:
            await context.report(0.5, f"{count} files")
        yield member


async def _book(
    services: Services,
    job: IngestUpload,
    context: JobContext,
    taken: Taken,
    problem: Problem | None,
    manifest_id: UUID | None,
    ended: list[Ended],
) -> None:
    outcomes = taken.outcomes
    studies = sorted({o.study_instance_uid for o in outcomes if o.study_instance_uid and o.state != "refused"})
    rows = [_file_row(job.upload_id, n, one, taken.made.get(one.sop_instance_uid)) for n, one in enumerate(outcomes)]
    async with services.db.write(context.asker) as tx:
        await tx.execute("delete from upload_files where upload_id = $1", job.upload_id)
        await tx.executemany(_WRITE_FILE, rows)
        await tx.execute(
            "update uploads set state = $2, problem = $3, study_instance_uids = $4, files_done = $5, finished_at = now() where id = $1",
            job.upload_id, "failed" if problem else "stored", problem.to_json() if problem else None, studies,
            len(rows),
        )  # fmt: skip
        if manifest_id is not None:
            await book_files(tx, manifest_id, ended)
        await tx.execute(
            "delete from uploads p using uploads u where u.id = $1 and p.id = any(u.parts) and p.owner_id = u.owner_id",
            job.upload_id,
        )
        counts = Counter(one.state for one in outcomes)
        await tell(
            tx, "upload.failed" if problem else "upload.stored", job.upload_id, files=len(rows), by_state=dict(counts)
        )
        await context.finish(tx)


def ingest(takers: Takers) -> HandlerSpec:
    """The handler; `takers` are the features that take objects over once they are stored."""
    return HandlerSpec(IngestUpload, partial(ingest_upload, takers=takers))
