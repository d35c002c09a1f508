"""The `annotomy` command. Each subcommand is thin: settings, services, one operation.

Heavy imports stand inside the commands that need them: `serve` has to answer soon.
"""

import asyncio
import sys
from uuid import UUID

import click

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import Database
from annotomy.db.private_server import PrivateServer, PrivateServerError
from annotomy.errors import Problem
from annotomy.logs import configure_logs
from annotomy.settings import Settings


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
        db = await Database.connect(database_url(Settings.from_environment()), pool_size=1)
        try:
            password_hash = await hash_password(password, username=name)
            async with db.write(SYSTEM) as tx:
                await create_user(tx, username=name, password_hash=password_hash, is_admin=admin)
        finally:
            await db.close()

    asyncio.run(create())
    click.echo(f"User {name} created.")


@main.command("api-key")
@click.argument("action", type=click.Choice(["create"]))
@click.option("--user", "username", required=True, help="Whose key.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Narrow the key: read, write, admin, or the name of a permission; repeatable.",
)
@click.option("--project", type=click.UUID, help="The only project that the key reaches.")
def api_key(action: str, username: str, scopes: tuple[str, ...], project: UUID | None) -> None:
    """Issue an API key for a user and print only the key."""
    from annotomy.identity.api_keys import issue_api_key

    async def issue() -> str:
        db = await Database.connect(database_url(Settings.from_environment()), pool_size=1)
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
                    project_id=project,
                    scopes=scopes or None,
                    expires_at=None,
                )
                return issued.key
        finally:
            await db.close()

    click.echo(asyncio.run(issue()))


def database_url(settings: Settings) -> str:
    """The database that a command line works on: the configured one, or the private server that `serve` runs."""
    url = settings.database.url or PrivateServer(settings.data_dir).running_url()
    if url is not None:
        return url
    raise click.ClickException("The private database is reached through a running `annotomy serve`; none was found.")


if __name__ == "__main__":
    main()
