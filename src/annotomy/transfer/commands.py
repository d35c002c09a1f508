"""The commands `import` and `export`."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from annotomy.settings import Settings

PROGRESS_PAUSE_S = 5.0
"""How often progress is told where it cannot be overwritten (a log, a pipe)."""


def connection_options(command: Any) -> Any:
    """How to reach the server; the defaults are for the machine that it runs on."""
    for option in (
        click.option("--user", "username", help="Whose rights are used (default: the administrator)."),
        click.option("--api-key", help="Credential for a server elsewhere; instead of --user."),
        click.option("--url", help="Address of the server (default: the one that runs on this data folder)."),
    ):
        command = option(command)
    return command


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--project", required=True, help="Name (or id) of the project; made when you have none of this name.")
@click.option("--watch", is_flag=True, help="Stay, and bring in what appears in the folders, until interrupted.")
@connection_options
def import_command(
    paths: tuple[Path, ...], project: str, watch: bool, url: str | None, api_key: str | None, username: str | None
) -> None:
    """Bring files, folders and archives (DICOM, NIfTI, ZIP, tar) into a project of the running server.

    Standard output gets a line for each file: its state, its path and the reason, separated by tabs. The state is
    stored, already (the same bytes were there), refused, or skipped (found in a folder and no medical image). Progress
    and the summary go to standard error. The exit status is 0 when nothing was refused, else 1.

    Broken off and begun again, it goes on where it stood: what is there is not sent a second time.
    """
    from annotomy.transfer.connection import TransferError, connect
    from annotomy.transfer.import_files import FileResult, import_paths, project_named, watch_paths

    progress = _Progress()

    def told(result: FileResult) -> None:
        progress.clear()
        click.echo("\t".join(filter(None, (result.state, result.path, result.reason))))

    began = time.monotonic()
    try:
        with connect(Settings.from_environment(), url=url, api_key=api_key, username=username) as client:
            project_id = project_named(client, project, told=progress.line)
            if watch:
                with suppress(KeyboardInterrupt):
                    watch_paths(client, list(paths), project_id=project_id, told=told, progress=progress.show)
                return
            report = import_paths(client, list(paths), project_id=project_id, told=told, progress=progress.show)
    except TransferError as error:
        raise click.ClickException(str(error)) from error
    counts = ", ".join(
        f"{report.count(state)} {state}"
        for state in ("stored", "already", "refused", "skipped")
        if report.count(state) or state == "stored"
    )
    progress.line(
        f"{len(report.files)} files: {counts}; {len(report.study_instance_uids)} studies in project {project},"
        f" {time.monotonic() - began:.1f} s"
    )
    if report.count("refused"):
        sys.exit(1)


@click.command("export")
@click.option("--study", "study_instance_uid", required=True, help="Study Instance UID.")
@click.option("--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder.")
@click.option(
    "--format",
    "form",
    default="dicom",
    type=click.Choice(["dicom", "nifti", "seg", "rtstruct", "csv"]),
    show_default=True,
)
@connection_options
def export_command(
    study_instance_uid: str, folder: Path, form: str, url: str | None, api_key: str | None, username: str | None
) -> None:
    """Write a study's DICOM files, or its segmentations as NIfTI, DICOM SEG, RTSTRUCT or a table of volumes, into a folder.

    Standard output gets the path of each file written. A file that is there already is left alone and ends the command.
    """
    from annotomy.transfer.connection import TransferError, connect
    from annotomy.transfer.export_study import export_dicom, export_segmentations, export_statistics

    written: list[Path] = []

    def told(path: Path) -> None:
        written.append(path)
        click.echo(path)

    try:
        with connect(Settings.from_environment(), url=url, api_key=api_key, username=username) as client:
            if form == "dicom":
                export_dicom(client, study_instance_uid, folder, told=told)
            elif form == "csv":
                export_statistics(client, study_instance_uid, folder, told=told)
            else:
                export_segmentations(client, study_instance_uid, folder, form, told=told)
    except TransferError as error:
        raise click.ClickException(str(error)) from error
    except FileExistsError as error:
        raise click.ClickException(f"{error.filename} is there already; nothing was overwritten.") from error
    click.echo(f"{len(written)} files in {folder}", err=True)


class _Progress:
    """One line that is overwritten on a terminal; now and then a new one elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._last = 0.0

    def show(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\x1b[2K{text[:100]}", err=True, nl=False)
            self._shown = True
        elif time.monotonic() - self._last > PROGRESS_PAUSE_S:
            self._last = time.monotonic()
            click.echo(text, err=True)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._shown = False

    def line(self, text: str) -> None:
        self.clear()
        click.echo(text, err=True)
