"""The command line of identity works on a running installation's database."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from annotomy import cli
from annotomy.actor import SYSTEM
from annotomy.identity.tokens import TokenSigner
from tests.identity.people import bearer, token, until
from tests.support.application import Application

ME = "/api/v1/users/me"


Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    async def command(*arguments: str, stdin: str = "") -> str:
        """In a thread with an event loop of its own, as a process would."""
        environment = {"ANNOTOMY_DATABASE_URL": database_url, "ANNOTOMY_DATA": str(tmp_path / "data")}
        result = await asyncio.to_thread(CliRunner(env=environment).invoke, cli.main, arguments, input=stdin)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    return command


async def test_rotating_and_retiring_a_key_reaches_a_running_server(application: Application, run: Run) -> None:
    before = await token(application, "reader")
    signer: TokenSigner = application.app.state.signer
    old = (await run("signing-key", "list")).split()[0]
    new = (await run("signing-key", "rotate")).split()[1]
    async with asyncio.timeout(5):
        while signer._newest != new:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.01)
    assert (await application.client.get(ME, headers=bearer(before))).status_code == 200
    await run("signing-key", "retire", old)
    await until(application, bearer(before), 401)
    assert (await application.client.get(ME, headers=bearer(await token(application, "reader")))).status_code == 200


async def test_an_operator_makes_a_link_for_who_forgot_the_password(application: Application, run: Run) -> None:
    await application.add_user("reader")
    link = await run("user", "reset-link", "reader")
    found = re.fullmatch(r"http://127\.0\.0\.1:8000/reset-password#(\S+)", link)
    assert found is not None
    body = {"token": found[1], "password": "seven green rivers of glass"}
    answer = await application.client.post("/api/v1/auth/password-reset/confirm", json=body)
    assert answer.status_code == 204


async def test_a_key_from_the_command_line_acts_and_carries_its_scopes(application: Application, run: Run) -> None:
    await application.add_user("reader")
    key = await run("api-key", "create", "--user", "reader", "--scope", "read")
    headers = {"Authorization": f"Bearer {key}"}
    assert (await application.client.get(ME, headers=headers)).json()["username"] == "reader"
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select scopes from api_keys") == ["read"]


async def test_a_user_from_the_command_line_signs_in(application: Application, run: Run) -> None:
    await run("user", "create", "carol", "--password-stdin", stdin="seven green rivers of glass\n")
    body = {"username": "carol", "password": "seven green rivers of glass"}
    assert (await application.client.post("/api/v1/auth/token", json=body)).status_code == 200


async def test_lost_second_factors_are_removed_by_the_operator(application: Application, run: Run) -> None:
    reader = bearer(await token(application, "reader"))
    assert (await application.client.get(ME, headers=reader)).status_code == 200
    await run("user", "remove-second-factors", "reader")
    await until(application, reader, 401)
    await token(application, "reader")
