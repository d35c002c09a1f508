"""`annotomy remotes`: which archives elsewhere are known, whether they answer, and how their lists are."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from uuid import UUID

import click

from annotomy.actor import SYSTEM
from annotomy.settings import Settings

if TYPE_CHECKING:
    from annotomy.remotes.remote_archive import Openers
    from annotomy.services import Services


def remote_commands(
    opened_services: "Callable[[Settings], AbstractAsyncContextManager[Services]]",
    openers: "Callable[[], Openers]",
) -> click.Group:
    """The group, over the services that the command line opens and the kinds of remotes that it composes."""

    @click.group("remotes")
    def group() -> None:
        """Archives elsewhere: PACS over DICOMweb or DIMSE."""

    @group.command("list")
    def show() -> None:
        """Every remote: id, name, kind, number of projects, and how its list was kept last."""

        async def run() -> None:
            async with opened_services(Settings.from_environment()) as services, services.db.read(SYSTEM) as tx:
                rows = await tx.fetch(
                    "select r.id, r.name, r.kind, (select count(*) from remote_projects p where p.remote_id = r.id) as projects,"
                    " coalesce(s.outcome, '-') as outcome from remotes r left join remote_syncs s on s.remote_id = r.id"
                    " order by r.name"
                )
                for row in rows:
                    click.echo("\t".join(str(value) for value in row.values()))

        asyncio.run(run())

    @group.command("echo")
    @click.argument("remote_id", type=click.UUID)
    def echo(remote_id: UUID) -> None:
        """Ask whether the remote REMOTE_ID answers: C-ECHO, or a query for one study. Ends with 1 when it does not."""
        from annotomy.errors import Problem
        from annotomy.remotes.ask import opened

        async def run() -> None:
            async with opened_services(Settings.from_environment()) as services:
                archive = await opened(services, openers(), SYSTEM, remote_id)
                await archive.echo()

        try:
            asyncio.run(run())
        except Problem as problem:
            raise click.ClickException(f"{problem.title}: {problem.detail}") from problem
        click.echo("The remote answers.")

    return group
