"""`annotomy dimse-peer`: who may call, as whom, into which project."""

from uuid import UUID

from click.testing import CliRunner, Result

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.query import Query, query
from annotomy.db.engine import Database
from annotomy.dimse.commands import peer_commands
from annotomy.dimse.pdu import AssociateReject
from annotomy.dimse.server import Listener
from annotomy.projects.service import create_project
from annotomy.services import Services
from tests.dimse.test_associations import RawPeer, request
from tests.dimse.test_store import send
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.dicom_listener import in_thread, listening


async def run(services: Services, *arguments: str) -> Result:
    async def open_database() -> Database:
        return await Database.connect(services.db.url, pool_size=1, audit_key=services.db.audit_key)

    group = peer_commands(open_database)
    return await in_thread(lambda: CliRunner().invoke(group, arguments))


async def project_of(application: Application, username: str) -> tuple[UUID, str]:
    owner = await application.add_user(username)
    async with application.services.db.write(owner) as tx:
        return (await create_project(tx, name="trial", description="")).id, username


async def test_a_peer_is_added_listed_and_removed(services: Services) -> None:
    added = await run(
        services, "add", "CT1", "--address", "10.1.0.0/16", "--may", "store", "--host", "ct1", "--port", "104"
    )
    assert added.exit_code == 0, added.output
    listed = await run(services, "list")
    assert listed.output.split("\t") == ["CT1", "10.1.0.0/16", "aet-CT1", "inbox", "store", "ct1:104\n"]
    again = await run(services, "add", "CT1")
    assert again.exit_code != 0
    assert (await run(services, "remove", "CT1")).exit_code == 0
    assert (await run(services, "remove", "CT1")).exit_code != 0
    assert (await run(services, "list")).output == ""


async def test_what_is_no_peer_is_refused(services: Services) -> None:
    for arguments in (
        ["add", "SEVENTEEN LETTERS"],
        ["add", "BACK\\SLASH"],
        ["add", "CT1", "--address", "anywhere"],
        ["add", "CT1", "--user", "nobody"],
        ["add", "CT1", "--project", "00000000-0000-4000-8000-000000000000"],
        ["add", "CT1", "--host", "ct1"],
    ):
        assert (await run(services, *arguments)).exit_code != 0, arguments
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from dimse_peers") == 0
        assert await tx.fetchval("select count(*) from users") == 0, "a refused peer leaves no principal behind"


async def test_what_a_peer_of_a_project_stores_is_seen_by_its_members(application: Application) -> None:
    services = application.services
    project_id, owner = await project_of(application, "owner")
    assert (await run(services, "add", "CT1", "--project", str(project_id))).exit_code == 0
    async with listening(services) as listener:
        assert await in_thread(lambda: send(listener.port, ct_series(1), title="CT1")) == [0]
    member = await actor_of(services, owner)
    async with services.db.read(member) as tx:
        assert len((await query(tx, Query("study"))).rows) == 1


async def actor_of(services: Services, username: str) -> Actor:
    async with services.db.read(SYSTEM) as tx:
        return Actor(user_id=await tx.fetchval("select id from users where username = $1", username), name=username)


async def test_a_person_is_not_made_a_member_by_a_peer(application: Application) -> None:
    services = application.services
    project_id, _ = await project_of(application, "owner")
    await application.add_user("outsider")
    refused = await run(services, "add", "CT1", "--user", "outsider", "--project", str(project_id))
    assert refused.exit_code != 0
    async with services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from project_members where project_id = $1", project_id) == 1


async def test_a_suspended_principal_lets_no_peer_in(services: Services, listener: Listener) -> None:
    async with services.db.write(SYSTEM) as tx:
        await tx.execute("update users set state = 'suspended' where username = 'aet-TESTSCU'")
    peer = await RawPeer.connect(listener.port)
    await peer.send(request())
    assert await peer.receive() == AssociateReject(1, 1, 3)
    await peer.close()
