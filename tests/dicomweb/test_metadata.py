"""Metadata of WADO-RS: told again without reading anything, packed as the client takes it, and only to who may see it."""

import gzip
import io
import json

import pytest
import zstandard
from pydicom import dcmread

from annotomy.dicomweb import metadata
from annotomy.http.content_cache import ContentCache, is_current
from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_instance, ct_series


async def test_who_has_it_is_told_so_as_long_as_they_may_see_it(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await application.headers("owner")
    files = ct_series(3)
    await stow(application, headers, files)
    first = dcmread(io.BytesIO(files[0]))
    path = f"/dicom-web/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}/metadata"
    answer = await application.client.get(path, headers=headers)
    assert [len(answer.json()), answer.headers["cache-control"]] == [3, "private, no-cache"]
    tag = answer.headers["etag"]

    async def unread(*_: object) -> list[bytes]:
        raise AssertionError("headers were read")

    with monkeypatch.context() as patched:
        patched.setattr(metadata, "headers", unread)
        again = await application.client.get(path, headers=headers)
        assert again.json() == answer.json()
        unchanged = await application.client.get(path, headers={**headers, "If-None-Match": f'"other", {tag}'})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
        stranger = await application.headers("stranger")
        hidden = await application.client.get(path, headers={**stranger, "If-None-Match": tag})
        assert hidden.status_code == 404
    more = ct_instance(study_instance_uid=first.StudyInstanceUID, series_instance_uid=first.SeriesInstanceUID, number=9)
    await stow(application, headers, [more])
    changed = await application.client.get(path, headers={**headers, "If-None-Match": tag})
    assert (changed.status_code, len(changed.json())) == (200, 4)


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("zstd", "zstd"), ("gzip, deflate", "gzip"), ("identity", ""), ("zstd;q=0, br", "")]
)
async def test_it_is_packed_as_the_client_takes_it(application: Application, accepted: str, encoding: str) -> None:
    headers = await application.headers("owner")
    files = ct_series(2)
    await stow(application, headers, files)
    path = f"/dicom-web/studies/{dcmread(io.BytesIO(files[0])).StudyInstanceUID}/metadata"
    for _ in range(2):
        async with application.client.stream("GET", path, headers={**headers, "Accept-Encoding": accepted}) as answer:
            raw = b"".join([piece async for piece in answer.aiter_raw()])
        assert answer.headers.get("content-encoding", "") == encoding
        assert answer.headers["vary"] == "Accept-Encoding"
        unpack = {"zstd": zstandard.ZstdDecompressor().decompress, "gzip": gzip.decompress, "": bytes}[encoding]
        assert len(json.loads(unpack(raw))) == 2


def test_answers_in_memory_are_bounded_and_the_oldest_goes_first() -> None:
    cache = ContentCache(400)
    for name in "abcd":
        cache.put(name, name.encode() * 100)
    assert cache.get("a") == b"a" * 100
    cache.put("e", b"e" * 50)
    assert (cache.get("b"), cache.get("a"), cache.size_bytes) == (None, b"a" * 100, 350)
    cache.put("huge", b"x" * 101)
    assert cache.get("huge") is None
    assert cache.size_bytes == 350


def test_entity_tags_are_compared_weakly() -> None:
    assert is_current('"x", W/"a"', 'W/"a"')
    assert is_current('"a"', 'W/"a"')
    assert is_current("*", 'W/"a"')
    assert not is_current(None, 'W/"a"')
    assert not is_current('W/"b"', 'W/"a"')
