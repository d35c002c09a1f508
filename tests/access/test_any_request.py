"""Whatever is sent, by whomever: never a fault of the server, never an answer that the OpenAPI document does not tell of.

schemathesis makes requests from the document, valid ones and spoiled ones; each is sent to the application in process. Most
name what is really there, so that they come further than the first 404. The cases are the same at each run; `--long` makes
more of them, and new ones each time.
"""

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seed_of_cases
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from annotomy.actor import SYSTEM
from annotomy.http.openapi import document
from tests.access.world import World, is_event_stream, one_turn, project_roles
from tests.support.application import Application

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
ACTORS = ["anonymous", "outsider", "admin", "system administrator", "key read", "key write", *project_roles()]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
LEAST_CASES = 2000
"""Over all actors, at each run: each operation is called once in each mode."""
LONG_FACTOR = 10
OF_THE_FIRST_VERSION = {"If-Match": '"1"', "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Upload-Length": "1"}
"""What lets an edit, or a chunk, of what the world holds come further than its preconditions."""
BASE = "http://annotomy.test"


@schemathesis.serializer(
    "multipart/related",
    "application/dicom",
    "application/offset+octet-stream",
    "application/partial-upload",
)
def _as_it_is(_: Any, value: Any) -> bytes:
    """Of bodies that are no JSON schemathesis knows only that they are bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("actor", ACTORS)
async def test_no_request_is_answered_with_a_fault_or_in_a_way_that_is_not_described(
    application: Application, world: World, actor: str
) -> None:
    sent = await _fuzz(application, world, actor, examples=2)
    assert sum(sent.values()) * len(ACTORS) >= LEAST_CASES, sent


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("actor", ACTORS)
async def test_no_request_of_many_is_answered_with_a_fault_or_in_a_way_that_is_not_described(
    application: Application, world: World, actor: str
) -> None:
    await _fuzz(application, world, actor, examples=LONG_FACTOR, seed=random.SystemRandom().randrange(1 << 32))


async def _fuzz(application: Application, world: World, actor: str, *, examples: int, seed: int = 0) -> Counter[int]:
    """Counts answers by status. Generation runs in a thread; the requests on this loop, where the database's pool lives."""
    headers = await _credential(application, world, actor)
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(_run, application, world, headers, loop, examples, actor, seed)


def _run(
    application: Application,
    world: World,
    headers: dict[str, str],
    loop: asyncio.AbstractEventLoop,
    examples: int,
    actor: str,
    seed: int,
) -> Counter[int]:
    described = cast("Any", schemathesis.openapi.from_dict(document(application.app)))
    statuses, wrong = Counter[int](), dict[str, str]()
    operations = [found.ok() for found in described.get_all_operations()]
    # What takes things away goes last, so that the others still find them.
    for operation in sorted(operations, key=lambda one: (one.method == "delete", one.path, one.method)):
        for mode in MODES:

            @seed_of_cases(_number(f"{seed} {actor} {operation.label} {mode}"))
            @settings(
                max_examples=examples,
                database=None,
                derandomize=False,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            )
            @given(case=operation.as_strategy(generation_mode=mode), real=st.integers(0, 3))
            def send(case: Any, real: int) -> None:
                told = headers
                if real < 3:
                    _name_what_exists(case, world.ids)
                    told = headers | OF_THE_FIRST_VERSION
                answer = asyncio.run_coroutine_threadsafe(_answer(application, case, told), loop).result(60)
                statuses[answer.status_code] += 1
                try:
                    case.validate_response(answer, checks=CHECKS)
                except FailureGroup as failed:
                    for one in failed.exceptions:
                        told = f"{case.method} {case.path} {answer.status_code} {type(one).__name__}"
                        wrong.setdefault(told, f"{one}\n{str(case.body)[:300]}\n{answer.text[:300]}")

            try:
                send()
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, operation.label  # takes nothing that could be spoiled
    assert not wrong, "\n\n".join(f"{name}\n{detail}" for name, detail in sorted(wrong.items()))
    return statuses


async def _credential(application: Application, world: World, actor: str) -> dict[str, str]:
    if actor == "anonymous":
        return {}
    if actor == "system administrator":
        person = await application.add_user("system_administrator")
        async with application.services.db.write(SYSTEM) as tx:
            await tx.execute(
                "insert into global_roles (user_id, role) values ($1, 'system_administrator')", person.user_id
            )
        return await application.headers("system_administrator")
    return world.people[actor]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _name_what_exists(case: Any, ids: dict[str, str]) -> None:
    for values in (case.path_parameters, case.query, case.body):
        if isinstance(values, dict):
            values.update({name: str(ids[name]) for name in values.keys() & ids.keys()})


async def _answer(application: Application, case: Any, headers: dict[str, str]) -> httpx.Response:
    sent = requests.Request(**case.as_transport_kwargs(base_url=BASE)).prepare()
    client = one_turn(application) if is_event_stream(case.method, case.path) else application.client
    body = sent.body.encode() if isinstance(sent.body, str) else sent.body
    return await client.request(
        str(sent.method), str(sent.url), headers=cast("Any", {**sent.headers, **headers}), content=cast("Any", body)
    )
