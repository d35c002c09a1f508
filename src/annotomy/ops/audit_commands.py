"""The commands `audit verify`, `audit export`, `audit seal`, `audit segments` and `audit drop`."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from annotomy.actor import SYSTEM
from annotomy.audit import load_audit_key
from annotomy.services import Services
from annotomy.settings import Settings

OpenServices = Callable[[Settings], AbstractAsyncContextManager[Services]]


def audit_commands(opened: OpenServices) -> click.Group:
    group = click.Group("audit", help="The audit.")
    for make in (_verify, _export, _seal, _segments, _drop):
        group.add_command(make(opened))
    return group


def _verify(opened: OpenServices) -> click.Command:
    @click.command("verify")
    @click.option(
        "--segment",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The file of a segment instead; needs no database.",
    )
    @click.option("--public-key", help="Hexadecimal, for --segment where the audit key is not at hand.")
    def verify(segment: Path | None, public_key: str | None) -> None:
        """Check the whole hash chain; names the first bad record and exits 1 when there is one."""
        from annotomy.ops.audit_chain import AuditChain, Verdict

        settings = Settings.from_environment()
        if segment is not None:
            _verify_segment(settings, segment, public_key)
            return

        async def check() -> Verdict:
            async with opened(settings) as services:
                chain = AuditChain(services.db, settings.data_dir)
                await chain.append_all()
                return await chain.verify()

        verdict = asyncio.run(check())
        if not verdict.valid:
            raise click.ClickException(f"Record {verdict.first_bad} of {verdict.records}: {verdict.problem}.")
        click.echo(f"{verdict.records} records, all as they were written.")

    return verify


def _verify_segment(settings: Settings, path: Path, public_key: str | None) -> None:
    from annotomy.ops.audit_chain import chain_hash, signing_key
    from annotomy.ops.audit_segment_file import verify_file

    if public_key is None:
        if settings.audit.key is None and not (settings.data_dir / "keys" / "audit.key").exists():
            raise click.ClickException(
                "Neither the audit key (ANNOTOMY_DATA, ANNOTOMY_AUDIT_KEY) nor --public-key is given."
            )
        key = asyncio.run(load_audit_key(settings.data_dir, settings.audit.key))
        verdict = verify_file(path, signing_key(key).public_key().public_bytes_raw(), partial(chain_hash, key))
    else:
        try:
            verdict = verify_file(path, bytes.fromhex(public_key))
        except ValueError as error:
            raise click.ClickException("--public-key takes hexadecimal digits.") from error
    if not verdict.valid:
        place = f"Record {verdict.first_bad}: " if verdict.first_bad else ""
        raise click.ClickException(f"{place}{verdict.problem}.")
    seal = verdict.seal
    assert seal is not None
    how = (
        "each in the hash chain"
        if verdict.chained
        else "as the seal says; without the audit key their hashes are not computed anew"
    )
    click.echo(f"Segment {seal.number} ({seal.month}): records {seal.first_seq} to {seal.last_seq}, {how}.")


def _export(opened: OpenServices) -> click.Command:
    @click.command("export")
    @click.option(
        "--format",
        "form",
        type=click.Choice(["dicom", "fhir", "jsonl"]),
        required=True,
        help="DICOM audit messages (XML), FHIR R4 AuditEvents (NDJSON) or JSON lines.",
    )
    @click.option("--since", type=click.DateTime(), help="From this moment on (UTC).")
    @click.option("--until", type=click.DateTime(), help="Before this moment (UTC).")
    @click.option("--reason", required=True, help="Why; it is recorded.")
    @click.option("--output", type=click.File("wb"), default="-", help="A file; default: standard output.")
    def export(form: Any, since: datetime | None, until: datetime | None, reason: str, output: BinaryIO) -> None:
        """Write the log to a file. The export itself is recorded, with its reason."""
        from annotomy.ops.audit_chain import AuditChain
        from annotomy.ops.audit_export import begin
        from annotomy.ops.audit_search import AuditFilter

        asked = AuditFilter(since=_utc(since), until=_utc(until))

        async def write() -> None:
            async with opened(Settings.from_environment()) as services:
                await AuditChain(services.db, services.settings.data_dir).append_all()
                made = await begin(services, SYSTEM, asked, form, reason=reason)
                async for piece in made.body:
                    output.write(piece)

        asyncio.run(write())

    return export


def _seal(opened: OpenServices) -> click.Command:
    @click.command("seal")
    def seal() -> None:
        """Seal every month that is over and keep it as a file. Workers do this each day."""
        from annotomy.ops.audit_segments import seal_months

        async def work() -> int:
            async with opened(Settings.from_environment()) as services:
                return await seal_months(services)

        click.echo(f"{asyncio.run(work())} segments sealed.")

    return seal


def _segments(opened: OpenServices) -> click.Command:
    @click.command("segments")
    @click.option(
        "--write", type=click.Path(file_okay=False, path_type=Path), help="Write their files into this folder."
    )
    def segments(write: Path | None) -> None:
        """List the sealed segments, and the public key that verifies their files."""
        from annotomy.ops.audit_chain import AuditChain
        from annotomy.ops.audit_segments import list_segments, segment_address

        async def work() -> None:
            async with opened(Settings.from_environment()) as services:
                async with services.db.read(SYSTEM) as tx:
                    found = [(one, (await segment_address(tx, one.number))[1]) for one in await list_segments(tx)]
                click.echo(f"public key {AuditChain(services.db, services.settings.data_dir).public_key.hex()}")
                for one, address in found:
                    state = (
                        f"dropped {one.dropped_at:%Y-%m-%d}"
                        if one.dropped_at
                        else f"kept until {one.keep_until:%Y-%m-%d}"
                    )
                    click.echo(f"{one.number:4} {one.month} records {one.first_seq}-{one.last_seq} {state}")
                    if write is not None:
                        write.mkdir(parents=True, exist_ok=True)
                        with (write / f"audit-{one.number:04}-{one.month}.jsonl.gz").open("wb") as file:
                            async for piece in services.blobs.stream(address):
                                file.write(piece)

        asyncio.run(work())

    return segments


def _drop(opened: OpenServices) -> click.Command:
    @click.command("drop")
    @click.option("--reason", required=True, help="Why; it is recorded.")
    def drop(reason: str) -> None:
        """Take the records of sealed segments whose time has passed out of the database. Their files stay."""
        from annotomy.ops.audit_segments import Segment, drop_due

        async def work() -> list[Segment]:
            async with opened(Settings.from_environment()) as services:
                return await drop_due(services, reason=reason)

        gone = asyncio.run(work())
        for one in gone:
            click.echo(f"Segment {one.number} ({one.month}): {one.records} records dropped.")
        if not gone:
            click.echo("Nothing is due.")

    return drop


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
