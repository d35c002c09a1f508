"""`annotomy dimse-peer`: which AE titles may call, as whom they act, where they listen."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import click

from annotomy.actor import SYSTEM
from annotomy.db.engine import Database, WriteTx

RIGHTS = ("store", "query", "retrieve")
T = TypeVar("T")


def peer_commands(open_database: Callable[[], Awaitable[Database]]) -> click.Group:
    """The group, over the database that the command line opens."""

    def work(operation: Callable[[WriteTx], Awaitable[T]]) -> T:
        async def run() -> T:
            db = await open_database()
            try:
                async with db.write(SYSTEM) as tx:
                    return await operation(tx)
            finally:
                await db.close()

        return asyncio.run(run())

    @click.group("dimse-peer")
    def group() -> None:
        """DICOM peers: AE titles that may call the listener."""

    @group.command("add")
    @click.argument("ae_title")
    @click.option("--address", help="Where it calls from: an IP address or a network (10.1.0.0/16). Without: anywhere.")
    @click.option("--user", "username", help="As whom it acts. Without: a service user of its own, aet-AE_TITLE.")
    @click.option(
        "--project",
        "project_id",
        type=click.UUID,
        help="What it stores goes to this project, and it sees only that. A service user becomes data manager there."
        " Without: the user's inbox.",
    )
    @click.option(
        "--may",
        "rights",
        type=click.Choice(RIGHTS),
        multiple=True,
        help="What it may do (repeat). Without: everything.",
    )
    @click.option("--purpose", default="", help="Why it retrieves: the recorded reason, which retrievals in bulk need.")
    @click.option("--host", help="Where it listens itself: for C-MOVE and storage commitment.")
    @click.option("--port", type=click.IntRange(1, 65535), help="With --host.")
    def add(
        ae_title: str,
        address: str | None,
        username: str | None,
        project_id: UUID | None,
        rights: tuple[str, ...],
        purpose: str,
        host: str | None,
        port: int | None,
    ) -> None:
        """Let AE_TITLE call."""
        if (host is None) != (port is None):
            raise click.UsageError("--host and --port come together.")
        from annotomy.dimse.peers import NewPeer, add_peer

        may = set(rights or RIGHTS)
        new = NewPeer(
            ae_title=ae_title,
            username=username,
            network=address,
            project_id=project_id,
            may_store="store" in may,
            may_query="query" in may,
            may_retrieve="retrieve" in may,
            purpose=purpose,
            host=host,
            port=port,
        )
        work(lambda tx: add_peer(tx, new))
        click.echo(f"Peer {ae_title} may call.")

    @group.command("list")
    def show() -> None:
        """Every peer: title, address, user, project, rights, where it listens."""
        from annotomy.dimse.peers import list_peers

        for peer in work(list_peers):
            may = ",".join(right for right in RIGHTS if peer[f"may_{right}"])
            listens = f"{peer['host']}:{peer['port']}" if peer["host"] else "-"
            shown = (
                peer["ae_title"],
                peer["network"] or "any",
                peer["username"],
                peer["project_id"] or "inbox",
                may,
                listens,
            )
            click.echo("\t".join(str(one) for one in shown))

    @group.command("remove")
    @click.argument("ae_title")
    def remove(ae_title: str) -> None:
        """Do not let AE_TITLE call any more. What it stored stays; associations that stand go on to their end."""
        from annotomy.dimse.peers import remove_peer

        work(lambda tx: remove_peer(tx, ae_title))
        click.echo(f"Peer {ae_title} removed.")

    return group
