"""The command `demo`: the supervisor's server, and beside it a tour that uses it as a client."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from annotomy.demo import DemoFailed
from annotomy.demo.words import say
from annotomy.settings import Settings

if TYPE_CHECKING:
    from annotomy.demo.tour import Tour


@click.command("demo")
@click.option("--once", is_flag=True, help="End with exit status 0 after the results are stored and checked.")
@click.option(
    "--log-level", envvar="ANNOTOMY_LOG_LEVEL", default="warning", help="Of the server's log lines beside the text."
)
def demo_command(once: bool, log_level: str) -> None:
    """Run the server with sample studies and segment them with the built-in models.

    A head MR, a CT, a radiograph, an ultrasound and another MR go into the project "Demo"; both models run on the head as
    ordinary predictions. Their results are checked against shipped references, and a picture of each is saved under the
    data folder. A second start finds everything there.
    """
    from annotomy.db.private_server import PrivateServerError
    from annotomy.logs import configure_logs
    from annotomy.supervisor import ServeError

    settings = msgspec.structs.replace(Settings.from_environment(), log_level=log_level)
    configure_logs(settings.log_level, process="server")
    try:
        asyncio.run(_demo(settings, once=once))
    except (ServeError, PrivateServerError) as error:
        raise click.ClickException(str(error)) from error


async def _demo(settings: Settings, *, once: bool) -> None:
    from annotomy.supervisor import Supervisor

    terminal = _Terminal(settings.language)
    terminal.progress("starting")
    supervisor = Supervisor(settings, announce=lambda text: None)
    serving = asyncio.create_task(supervisor.run())
    answering = asyncio.create_task(supervisor.answering.wait())
    await asyncio.wait([serving, answering], return_when=asyncio.FIRST_COMPLETED)
    if answering.done():
        terminal.done("answering", address=supervisor.address)
        touring = asyncio.create_task(asyncio.to_thread(_tour, settings, terminal))
        await asyncio.wait([serving, touring], return_when=asyncio.FIRST_COMPLETED)
        login = _login(settings, supervisor.generated_password)
        if serving.done():
            await asyncio.wait([touring])  # it meets a server that is gone, and ends
            touring.exception()
        else:
            try:
                found = await touring
            except DemoFailed as error:
                supervisor.stop()
                await serving
                terminal.line(f"{say(settings.language, 'login')}: {login}")
                raise click.ClickException(say(settings.language, "failed", reason=error)) from error
            _close(settings, terminal, found, supervisor.address, login, once=once)
            if once:
                supervisor.stop()
    answering.cancel()
    await serving


def _tour(settings: Settings, terminal: "_Terminal") -> "Tour":
    """In a thread: its imports alone take seconds, in which the supervisor starts the worker."""
    from annotomy.demo.tour import tour

    return tour(settings, say=terminal.done, progress=terminal.progress)


def _login(settings: Settings, generated: str | None) -> str:
    username = settings.admin.username
    if generated is not None:
        return say(settings.language, "generated", username=username, password=generated)
    if settings.admin.password is not None:
        return say(settings.language, "given", username=username)
    reset = f"./run cli user password {username} --password-stdin"
    return f"{say(settings.language, 'known', username=username)} {reset}"


def _close(settings: Settings, terminal: "_Terminal", found: "Tour", address: str, login: str, *, once: bool) -> None:
    """The closing block: where everything is."""
    from annotomy.demo.checks import HIPPOCAMPUS_ML, LEAST_BRAIN_DICE
    from annotomy.demo.tour import PROJECT

    language = settings.language
    head = found.head_study_instance_uid
    rows = [
        ("address", address),
        ("login", login),
        ("studies", say(language, "in_project", count=len(found.study_instance_uids), project=PROJECT)),
        ("", f"{say(language, 'head_study')}: {address}viewer/{head}"),
        ("", f"{say(language, 'in_ohif')}: {address}ohif/viewer?StudyInstanceUIDs={head}"),
    ]
    for result in found.results:
        if result.dice is not None:
            volume = f"{sum(result.volumes_ml.values()):.0f}"
            text = say(language, "brain", volume=volume, dice=f"{result.dice:.3f}", least=f"{LEAST_BRAIN_DICE:.2f}")
        else:
            assert result.right_left_ml is not None
            right, left = (f"{volume:.2f}" for volume in result.right_left_ml)
            low, high = HIPPOCAMPUS_ML
            text = say(language, "hippocampi", right=right, left=left, low=low, high=high)
        rows.append(("segmentations" if result is found.results[0] else "", f"{result.model}: {text}"))
        rows.append(("", f"  {address}api/v1/segmentations/{result.segmentation_id}"))
        seg = f"dicom-web/studies/{head}/series/{result.seg_series_instance_uid}"
        rows.append(("", f"  {say(language, 'seg')}: {address}{seg}"))
    for number, result in enumerate(found.results):
        rows.append(("" if number else "pictures", str(Path(result.picture))))
    rows.append(("summary", found.summary))
    terminal.block([(say(language, key) if key else "", text) for key, text in rows])
    terminal.line(say(language, "again" if once else "stop", folder=settings.data_dir))


class _Terminal:
    """Steps that are done stay; what is going on is one line that is overwritten, where there is a terminal."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._overwrites = sys.stderr.isatty()
        self._last = ""
        self._began = time.monotonic()

    def done(self, key: str, **figures: object) -> None:
        self._clear()
        elapsed = time.monotonic() - self._began
        click.echo(f"  ✓ {say(self._language, key, **figures)}  ({elapsed:.1f} s)", err=True)

    def progress(self, key: str, **figures: object) -> None:
        text = say(self._language, key, **figures)
        if self._overwrites:
            self._clear()
            click.echo(f"    {text[:90]}", err=True, nl=False)
        elif text.split(":")[0] != self._last.split(":")[0]:
            click.echo(f"    {text}", err=True)
        self._last = text

    def line(self, text: str) -> None:
        self._clear()
        click.echo(text)

    def block(self, rows: list[tuple[str, str]]) -> None:
        self._clear()
        width = max(_cells(name) for name, _ in rows) + 2
        click.echo("")
        for name, text in rows:
            click.echo(name + " " * (width - _cells(name)) + text)
        click.echo("")

    def _clear(self) -> None:
        if self._overwrites:
            click.echo("\r\x1b[2K", err=True, nl=False)


def _cells(text: str) -> int:
    """Columns on a terminal: Hangul takes two."""
    return sum(2 if "\u1100" <= character <= "\uffdc" else 1 for character in text)
