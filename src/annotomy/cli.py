"""The `annotomy` command. Each subcommand is thin: settings, services, one operation.

Heavy imports stand inside the commands that need them: `serve` has to answer soon.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import click

from annotomy.actor import SYSTEM, Actor
from annotomy.audit import load_audit_key
from annotomy.db.engine import Database
from annotomy.db.private_server import PrivateServer, PrivateServerError
from annotomy.demo.commands import demo_command
from annotomy.dimse.commands import peer_commands
from annotomy.errors import Problem
from annotomy.identity.commands import add_commands as add_identity_commands
from annotomy.inference.commands import model
from annotomy.logs import configure_logs
from annotomy.ops.audit_commands import audit_commands
from annotomy.ops.commands import doctor_command
from annotomy.remotes.commands import remote_commands
from annotomy.services import Services
from annotomy.settings import Settings
from annotomy.transfer.commands import export_command, import_command

if TYPE_CHECKING:
    from annotomy.remotes.remote_archive import Openers


class _Commands(click.Group):
    """Problems are told in one line and end with exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Problem as problem:
            raise click.ClickException(problem.detail) from problem
        except ValueError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(package_name="annotomy")
def main() -> None:
    """Annotomy: annotation and segmentation server for medical images."""


main.add_command(demo_command)
main.add_command(doctor_command)
main.add_command(import_command)
main.add_command(export_command)
main.add_command(model)


@main.command()
def serve() -> None:
    """Run the server: database, HTTP processes, job workers and DICOM listener."""
    from annotomy.supervisor import ServeError, Supervisor

    settings = Settings.from_environment()
    configure_logs(settings.log_level, process="server")
    try:
        asyncio.run(Supervisor(settings, click.echo).run())
    except (ServeError, PrivateServerError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
def worker() -> None:
    """Run a job worker alone, beside a server on another host or one with ANNOTOMY_WORKERS_INLINE=0."""
    from annotomy.logs import configure_logs
    from annotomy.worker import run_worker

    settings = Settings.from_environment()
    configure_logs(settings.log_level, process="worker")
    asyncio.run(run_worker(settings, database_url(settings)))


@main.command()
def dimse() -> None:
    """Run the DICOM listener alone, beside a server with ANNOTOMY_DIMSE_PORT=0."""
    import uvloop

    from annotomy.app import open_services
    from annotomy.dimse.server import run_listener

    settings = Settings.from_environment()
    configure_logs(settings.log_level, process="dimse")

    async def listen() -> None:
        async with open_services(settings, database_url(settings)) as services:
            await run_listener(services)

    uvloop.run(listen())


@main.command()
def migrate() -> None:
    """Bring the database to this release's schema."""
    from annotomy.db.migrate import migrate as run_migrations

    asyncio.run(run_migrations(database_url(Settings.from_environment())))
    click.echo("The database is up to date.")


@main.group()
def user() -> None:
    """Users."""


@user.command("create")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, required=True, help="Read the password from standard input.")
@click.option("--admin", is_flag=True, help="Make the user an administrator.")
def user_create(name: str, password_stdin: bool, admin: bool) -> None:
    """Create an active user called NAME."""
    from annotomy.identity.passwords import hash_password
    from annotomy.identity.users import create_user

    password = sys.stdin.readline().rstrip("\n")

    async def create() -> None:
        db = await open_database(Settings.from_environment())
        try:
            password_hash = await hash_password(password, username=name)
            async with db.write(SYSTEM) as tx:
                await create_user(tx, username=name, password_hash=password_hash, is_admin=admin)
        finally:
            await db.close()

    asyncio.run(create())
    click.echo(f"User {name} created.")


@user.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, required=True, help="Read the new password from standard input.")
def user_password(name: str, password_stdin: bool) -> None:
    """Give the user called NAME a new password; their sessions end."""
    from annotomy.identity.passwords import hash_password
    from annotomy.identity.users import set_password

    password = sys.stdin.readline().rstrip("\n")

    async def change() -> None:
        db = await open_database(Settings.from_environment())
        try:
            password_hash = await hash_password(password)
            async with db.write(SYSTEM) as tx:
                await set_password(tx, username=name, password_hash=password_hash)
        finally:
            await db.close()

    asyncio.run(change())
    click.echo(f"User {name} has a new password.")


@main.command("api-key")
@click.argument("action", type=click.Choice(["create"]))
@click.option("--user", "username", required=True, help="Whose key.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Narrow the key: read, write, admin, or the name of a permission; repeatable.",
)
@click.option("--project", "projects", type=click.UUID, multiple=True, help="Bind the key to this project; repeatable.")
def api_key(action: str, username: str, scopes: tuple[str, ...], projects: tuple[UUID, ...]) -> None:
    """Issue an API key for a user and print only the key."""
    from annotomy.identity.api_keys import issue_api_key

    async def issue() -> str:
        db = await open_database(Settings.from_environment())
        try:
            async with db.write(SYSTEM) as tx:
                row = await tx.fetchrow("select id, username from users where lower(username) = lower($1)", username)
                if row is None:
                    raise click.ClickException("There is no such user.")
                tx.actor = Actor(user_id=row["id"], name=row["username"])
                issued = await issue_api_key(
                    tx,
                    user_id=row["id"],
                    name="command line",
                    project_ids=projects or None,
                    scopes=scopes or None,
                    expires_at=None,
                )
                return issued.key
        finally:
            await db.close()

    click.echo(asyncio.run(issue()))


async def open_database(settings: Settings) -> Database:
    """For one command: one connection, and the key that seals what it records."""
    audit_key = await load_audit_key(settings.data_dir, settings.audit.key)
    return await Database.connect(database_url(settings), pool_size=1, audit_key=audit_key)


add_identity_commands(main, user, open_database)


def database_url(settings: Settings) -> str:
    """The database that a command line works on: the configured one, or the private server that `serve` runs."""
    url = settings.database.url or PrivateServer(settings.data_dir).running_url()
    if url is not None:
        return url
    raise click.ClickException("The private database is reached through a running `annotomy serve`; none was found.")


@asynccontextmanager
async def opened_services(settings: Settings) -> AsyncGenerator[Services]:
    """For one command that needs more than the database."""
    from annotomy.app import open_services

    async with open_services(settings, database_url(settings)) as services:
        yield services


def remote_openers() -> "Openers":
    from annotomy.app import REMOTE_OPENERS

    return REMOTE_OPENERS


main.add_command(audit_commands(opened_services))
main.add_command(remote_commands(opened_services, remote_openers))
main.add_command(peer_commands(lambda: open_database(Settings.from_environment())))


if __name__ == "__main__":
    main()
