"""Commands of identity: `annotomy signing-key`, and what `annotomy user` has besides `create`.

Heavy imports stand inside the commands that need them, as in cli.py.
"""

import asyncio
from collections.abc import Awaitable, Callable

import click

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import Database, WriteTx
from annotomy.settings import Settings


def add_commands(
    main: click.Group, user: click.Group, open_database: Callable[[Settings], Awaitable[Database]]
) -> None:
    """Registers them; `open_database` opens the database that the command line works on."""

    def run(work: Callable[[WriteTx], Awaitable[str]]) -> None:
        async def in_database() -> str:
            db = await open_database(Settings.from_environment())
            try:
                async with db.write(SYSTEM) as tx:
                    return await work(tx)
            finally:
                await db.close()

        click.echo(asyncio.run(in_database()))

    @main.group("signing-key")
    def signing_key() -> None:
        """Keys that sign access tokens."""

    @signing_key.command("list")
    def list_keys() -> None:
        """List the keys: the newest signs, the others verify until they are retired."""

        async def work(tx: WriteTx) -> str:
            rows = await tx.fetch(
                "select kid, created_at, retired_at from signing_keys order by created_at desc, kid desc"
            )
            return "\n".join(
                f"{row['kid']}  {row['created_at']:%Y-%m-%d %H:%M}"
                + (f"  retired {row['retired_at']:%Y-%m-%d %H:%M}" if row["retired_at"] else "")
                for row in rows
            )

        run(work)

    @signing_key.command("rotate")
    def rotate() -> None:
        """Make a new key that signs from now on. Running servers take it up at once."""
        from annotomy.identity.seal import Seal
        from annotomy.identity.tokens import add_signing_key

        seal = Seal(Settings.from_environment().identity.secret)

        async def work(tx: WriteTx) -> str:
            return f"Key {await add_signing_key(tx, seal)} signs now."

        run(work)

    @signing_key.command("retire")
    @click.argument("kid")
    def retire(kid: str) -> None:
        """Refuse what the key KID signed; people refresh their access tokens by themselves."""
        from annotomy.identity.tokens import retire_signing_key

        async def work(tx: WriteTx) -> str:
            await retire_signing_key(tx, kid)
            return f"Key {kid} is retired."

        run(work)

    @user.command("reset-link")
    @click.argument("name")
    def reset_link(name: str) -> None:
        """Print a link with which the user NAME sets a new password; for installations without mail."""
        from annotomy.http.peer import public_origin
        from annotomy.identity.notices import new_reset_token

        settings = Settings.from_environment()

        async def work(tx: WriteTx) -> str:
            row = await tx.fetchrow(
                "select id, username from users where lower(username) = lower($1) and state = 'active' and not is_service",
                name,
            )
            if row is None:
                raise click.ClickException("There is no active user of this name.")
            tx.actor = Actor(user_id=row["id"], name=row["username"])
            token = await new_reset_token(tx, row["id"])
            return f"{public_origin(settings.http)}/reset-password#{token}"

        run(work)

    @user.command("remove-second-factors")
    @click.argument("name")
    def remove_second_factors(name: str) -> None:
        """Remove authenticator, recovery codes and passkeys of the user NAME, who lost them; ends all sessions."""
        from annotomy.identity.sessions import end_sessions

        async def work(tx: WriteTx) -> str:
            row = await tx.fetchrow("select id, username from users where lower(username) = lower($1)", name)
            if row is None:
                raise click.ClickException("There is no such user.")
            for table in ("totp_factors", "recovery_codes", "passkeys"):
                await tx.execute(f"delete from {table} where user_id = $1", row["id"])
            await end_sessions(tx, row["id"], why="second factors removed by the operator")
            return f"{row['username']} signs in with the password alone now."

        run(work)
