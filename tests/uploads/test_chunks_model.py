"""Chunks in every order against a model that is one byte array for each upload.

Right, duplicate, reordered, overlapping, too long, damaged and simultaneous chunks: the durable offset is what the model
says after each step, and the bytes before it are the model's.
"""

import asyncio
import base64
import hashlib
import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotomy.uploads.part_file import part_file
from tests.support.application import Application

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}
LENGTH = 40_000
"""Some chunks begin on a block of the disk and some do not."""
SIZES = st.sampled_from([0, 1, 100, 4095, 4096, 8192, 9000])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), SIZES, st.sampled_from(["none", "right", "wrong"])),
        st.tuples(st.just("behind"), SIZES, st.integers(1, 5000)),
        st.tuples(st.just("ahead"), SIZES, st.integers(1, 5000)),
        st.tuples(st.just("twice at once"), SIZES, st.integers(2, 4)),
        st.tuples(st.just("too long"), st.just(0), st.just(0)),
        st.tuples(st.just("give up"), st.just(0), st.just(0)),
    ),
    min_size=20,
    max_size=60,
)
FEW = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=125, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(steps=STEPS, seed=st.integers(0, 1 << 32))
async def test_the_durable_offset_is_what_the_model_says(
    application: Application, steps: list[tuple[str, int, Any]], seed: int
) -> None:
    await _walk(application, steps, seed)


@pytest.mark.long
@MANY
@given(steps=STEPS, seed=st.integers(0, 1 << 32))
async def test_the_durable_offset_is_what_the_model_says_over_5000_steps(
    application: Application, steps: list[tuple[str, int, Any]], seed: int
) -> None:
    await _walk(application, steps, seed)


async def _walk(application: Application, steps: list[tuple[str, int, Any]], seed: int) -> None:
    headers = await application.headers("owner")
    noise = random.Random(seed)  # noqa: S311
    url, model = await _create(application, headers), bytearray()
    for kind, size, how in steps:
        room = LENGTH - 1 - len(model)  # never finished: the ingest is another test's subject
        data = noise.randbytes(min(size, room))
        if kind == "append":
            answer = await _send(application, headers, url, len(model), data, how)
            if how == "wrong":
                assert answer.status_code == 460
            else:
                assert answer.status_code == 204, answer.text
                model += data
        elif kind in ("behind", "ahead"):
            offset = len(model) + (how if kind == "ahead" else -min(how, len(model)))
            if offset == len(model):
                continue
            answer = await _send(application, headers, url, offset, data, "none")
            assert (answer.status_code, answer.json()["offset"]) == (409, len(model))
        elif kind == "twice at once":
            answers = await asyncio.gather(
                *(_send(application, headers, url, len(model), data, "none") for _ in range(how))
            )
            taken = [answer for answer in answers if answer.status_code == 204]
            assert {answer.status_code for answer in answers} <= {204, 409, 423}
            assert len(taken) == (how if not data else 1), "exactly one of the same chunks is taken"
            model += data
        elif kind == "too long":
            answer = await _send(application, headers, url, len(model), b"x" * (LENGTH - len(model) + 1), "none")
            assert answer.status_code == 413
        else:
            assert (await application.client.delete(url, headers=headers | TUS)).status_code == 204
            assert (await application.client.head(url, headers=headers | TUS)).status_code == 404
            assert not _part(application, url).exists()
            url, model = await _create(application, headers), bytearray()
        await _check(application, headers, url, model)
    await application.client.delete(url, headers=headers | TUS)


async def _create(application: Application, headers: dict[str, str]) -> str:
    answer = await application.client.post("/api/v1/uploads", headers=headers | TUS | {"Upload-Length": str(LENGTH)})
    return answer.headers["location"]


async def _send(
    application: Application, headers: dict[str, str], url: str, offset: int, data: bytes, checksum: str
) -> Any:
    more: dict[str, str] = {}
    if checksum != "none":
        digest = hashlib.sha256(data if checksum == "right" else data + b"!").digest()
        more["Upload-Checksum"] = f"sha256 {base64.b64encode(digest).decode()}"
    return await application.client.patch(
        url, headers=headers | CHUNK | {"Upload-Offset": str(offset)} | more, content=data
    )


async def _check(application: Application, headers: dict[str, str], url: str, model: bytearray) -> None:
    told = await application.client.head(url, headers=headers | TUS)
    assert int(told.headers["upload-offset"]) == len(model)
    assert _part(application, url).read_bytes()[: len(model)] == bytes(model)


def _part(application: Application, url: str) -> Any:
    return part_file(application.services, UUID(url.rpartition("/")[2]))
