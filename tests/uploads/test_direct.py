"""Direct uploads: parts by signed addresses, one client for this server and for a real object store."""

import asyncio
import base64
import hashlib
import io
import os
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import httpx
import pytest
from blake3 import blake3

from annotomy.actor import SYSTEM
from annotomy.app import create_app, open_services
from annotomy.blobs.sigv4 import Credentials, presigned
from annotomy.services import Clock
from annotomy.settings import Settings
from annotomy.uploads.direct import LEAST_PART_BYTES, part_size
from annotomy.uploads.part_file import part_file
from annotomy.uploads.staged import sweep_staged
from annotomy.uploads.sweep import sweep_uploads
from tests.support.application import Application, running
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs
from tests.support.s3 import KEY, SECRET, s3_server

NOISE = os.urandom(2 * LEAST_PART_BYTES)


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(params=["server", "s3"])
async def place(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncGenerator[Application]:
    """The application over the file store, and over an object store that clients reach themselves."""
    environment = {"ANNOTOMY_DATA": str(tmp_path / "data")}
    if request.param == "s3":
        environment |= {
            "ANNOTOMY_BLOBS_URL": request.getfixturevalue("s3_url").replace(
                "?", f"/{tmp_path.name}?"
            ),  # a folder of its own
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
    async with (
        open_services(Settings.from_environment(environment), database_url) as services,
        running(services) as application,
    ):
        yield application


def package(slices: int = 2) -> bytes:
    """An archive of three parts: slices, and noise that no store can be quick with."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("noise", NOISE)
        for number, data in enumerate(ct_series(slices)):
            archive.writestr(f"{number}.dcm", data)
    return buffer.getvalue()


async def begin(place: Application, headers: dict[str, str], data: bytes, **more: Any) -> Any:
    body = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest(), "part_bytes": LEAST_PART_BYTES} | more
    answer = await place.client.post("/api/v1/uploads/direct", headers=headers, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def addresses(place: Application, headers: dict[str, str], upload: Any, *parts: Any) -> list[Any]:
    url = f"/api/v1/uploads/{upload['id']}/parts"
    answer = await place.client.post(url, headers=headers, json={"parts": list(parts)})
    assert answer.status_code == 200, answer.text
    return answer.json()["parts"]


async def put(place: Application, address: Any, data: bytes, **changed: str) -> httpx.Response:
    """Without any credential, wherever the address leads."""
    headers = address["headers"] | changed
    if address["url"].startswith("/"):
        return await place.client.put(address["url"], headers=headers, content=data)
    async with httpx.AsyncClient(trust_env=False) as plain:
        return await plain.put(address["url"], headers=headers, content=data)


async def send(place: Application, headers: dict[str, str], upload: Any, data: bytes, *numbers: int) -> list[Any]:
    """Sends these parts and gives the client's own list of them."""
    sent: list[Any] = []
    for address in await addresses(place, headers, upload, *({"number": number} for number in numbers)):
        piece = data[address["offset"] : address["offset"] + address["length"]]
        answer = await put(place, address, piece)
        assert answer.status_code == 200, answer.text
        sent.append({"number": address["number"], "size": len(piece), "etag": answer.headers["etag"]})
    return sent


async def complete(place: Application, headers: dict[str, str], upload: Any, parts: Any = None) -> httpx.Response:
    return await place.client.post(
        f"/api/v1/uploads/{upload['id']}/complete", headers=headers, json={"parts": parts} if parts else {}
    )


async def shown(place: Application, headers: dict[str, str], upload: Any, what: str = "") -> Any:
    return (await place.client.get(f"/api/v1/uploads/{upload['id']}{what}", headers=headers)).json()


async def left_behind(place: Application) -> list[Any]:
    """Files and objects of uploads that still lie somewhere."""
    folder = place.services.settings.data_dir / "uploads"
    here: list[Any] = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    staging = place.services.staging
    if staging is not None:
        here += [*await staging.unfinished(), *await staging.finished()]
    return here


def parts_by_boto3(place: Application, upload_id: str) -> list[int]:
    boto3 = pytest.importorskip("boto3")
    parts = urlsplit(place.services.settings.blobs_url or "")
    endpoint = dict(parse_qsl(parts.query))["endpoint"]
    client: Any = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    key = f"{parts.path.strip('/')}/uploads/{upload_id}"
    [begun] = client.list_multipart_uploads(Bucket=parts.netloc, Prefix=key)["Uploads"]
    listed = client.list_parts(Bucket=parts.netloc, Key=key, UploadId=begun["UploadId"])["Parts"]
    return sorted(part["PartNumber"] for part in listed)


async def test_parts_in_any_order_become_one_verified_upload(place: Application) -> None:
    headers, data = await place.headers("owner"), package()
    upload = await begin(place, headers, data, filename="study.zip")
    assert (upload["part_count"], upload["parts"]) == (3, [])
    first = await send(place, headers, upload, data, 3, 1)
    if place.services.staging is not None:
        assert await asyncio.to_thread(parts_by_boto3, place, upload["id"]) == [1, 3]
    early = await complete(place, headers, upload)
    assert (early.status_code, early.json()["missing"]) == (409, [2])
    resumed = await shown(place, headers, upload, "/parts")
    assert [part["number"] for part in resumed["parts"]] == [1, 3], "what has arrived is never sent again"
    polled = await shown(place, headers, upload)
    assert (polled["state"], polled["offset"]) == ("receiving", sum(part["size"] for part in resumed["parts"]))
    told = first + await send(place, headers, upload, data, 2)
    wrong = [part | {"etag": '"0"'} if part["number"] == 2 else part for part in told]
    assert (await complete(place, headers, upload, wrong)).json()["missing"] == [2]
    assert (await complete(place, headers, upload, told)).json()["state"] == "verifying"
    assert (await complete(place, headers, upload, told)).status_code == 202, "doing it again is no error"
    assert (await place.client.get("/dicom-web/studies", headers=headers)).status_code in (200, 204)
    await run_queued_jobs(place.services)
    ended = await shown(place, headers, upload)
    assert ended["state"] == "stored", ended
    assert [file["state"] for file in ended["files"]] == ["refused", "stored", "stored"]
    assert await left_behind(place) == []


async def test_a_whole_that_hashes_to_something_else_never_becomes_visible(place: Application) -> None:
    headers, data = await place.headers("owner"), ct_series(1)[0]
    upload = await begin(place, headers, data, sha256=None, blake3=blake3(b"other").hexdigest())
    await send(place, headers, upload, data, 1)
    assert (await complete(place, headers, upload)).status_code == 202
    await run_queued_jobs(place.services)
    ended = await shown(place, headers, upload)
    assert (ended["state"], ended["problem"]["type"]) == ("failed", "urn:annotomy:problem:content-mismatch")
    assert (await place.client.get("/dicom-web/studies", headers=headers)).json() == []
    assert await left_behind(place) == []


async def test_an_address_takes_its_own_bytes_and_no_others(place: Application) -> None:
    headers, data = await place.headers("owner"), package()
    upload = await begin(place, headers, data)
    piece = data[:LEAST_PART_BYTES]
    md5 = base64.b64encode(hashlib.md5(piece, usedforsecurity=False).digest()).decode()
    [bound] = await addresses(place, headers, upload, {"number": 1, "content_md5": md5})
    damaged = await put(place, bound, b"!" + piece[1:])
    assert 400 <= damaged.status_code < 500
    assert (await put(place, bound, piece[:-1], **{"Content-Length": str(len(piece) - 1)})).status_code >= 400
    elsewhere = bound | {"url": bound["url"].replace("/parts/1", "/parts/2").replace("partNumber=1", "partNumber=2")}
    assert (await put(place, elsewhere, piece)).status_code == 403
    assert (await shown(place, headers, upload, "/parts"))["parts"] == []
    assert (await put(place, bound, piece)).status_code == 200
    assert (await put(place, bound, piece)).status_code == 200, "a part may be sent again"
    assert len((await shown(place, headers, upload, "/parts"))["parts"]) == 1


async def test_only_the_owner_goes_on_and_what_is_given_up_leaves_nothing(place: Application) -> None:
    owner, stranger = await place.headers("owner"), await place.headers("stranger")
    data = package()
    upload = await begin(place, owner, data)
    await send(place, owner, upload, data, 1)
    for answer in (
        await place.client.get(f"/api/v1/uploads/{upload['id']}/parts", headers=stranger),
        await place.client.post(
            f"/api/v1/uploads/{upload['id']}/parts", headers=stranger, json={"parts": [{"number": 1}]}
        ),
        await complete(place, stranger, upload),
    ):
        assert answer.status_code == 404
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    mixed = await place.client.patch(f"/api/v1/uploads/{upload['id']}", headers=owner | tus, content=b"x")
    assert mixed.status_code in (409, 410)
    assert (await place.client.delete(f"/api/v1/uploads/{upload['id']}", headers=owner)).status_code == 204
    assert await left_behind(place) == []


async def test_a_stale_upload_is_aborted_and_a_stray_one_swept(place: Application) -> None:
    headers, data = await place.headers("owner"), package()
    upload = await begin(place, headers, data)
    await send(place, headers, upload, data, 1)
    assert await sweep_staged(place.services, young=timedelta(0)) == 0, "it is open"
    async with place.services.db.write(SYSTEM) as tx:
        await tx.execute("update uploads set expires_at = now() - interval '1 second'")
    assert await sweep_uploads(place.services) == 1
    assert await left_behind(place) == []
    assert (await place.client.get(f"/api/v1/uploads/{upload['id']}/parts", headers=headers)).status_code == 410
    staging = place.services.staging
    if staging is not None:
        stray = "0190b0b0-0000-7000-8000-000000000000"
        multipart_id = await staging.begin(stray)
        assert await sweep_staged(place.services, young=timedelta(days=1)) == 0, "its row may be on its way"
        assert await sweep_staged(place.services, young=timedelta(seconds=-5)) == 1
        assert await staging.parts(stray, multipart_id) in (None, [])


async def test_a_completion_that_reached_the_store_and_not_us_ends_by_trying_again(place: Application) -> None:
    staging = place.services.staging
    if staging is None:
        pytest.skip("parts are kept by the object store alone")
    headers, data = await place.headers("owner"), package()
    upload = await begin(place, headers, data)
    await send(place, headers, upload, data, 1, 2, 3)
    async with place.services.db.read(SYSTEM) as tx:
        multipart_id = await tx.fetchval("select multipart_id from uploads where id = $1", UUID(upload["id"]))
    parts = await staging.parts(upload["id"], multipart_id)
    assert parts is not None
    await staging.finish(upload["id"], multipart_id, parts)
    assert (await complete(place, headers, upload)).status_code == 202
    await run_queued_jobs(place.services)
    assert (await shown(place, headers, upload))["state"] == "stored"


async def test_an_address_ends_with_its_hour_and_with_its_upload(application: Application) -> None:
    headers, data = await application.headers("owner"), package()
    upload = await begin(application, headers, data)
    [address] = await addresses(application, headers, upload, {"number": 3})
    piece = data[address["offset"] :]

    class _Later(Clock):
        def now(self) -> Any:
            return super().now() + timedelta(hours=2)

    late = create_app(replace(application.services, clock=_Later()))
    asgi: Any = late
    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://annotomy.test") as client:
        answer = await client.put(address["url"], headers=address["headers"], content=piece)
    assert answer.status_code == 403
    assert (await put(application, address, piece)).status_code == 200
    await send(application, headers, upload, data, 1, 2)
    before = part_file(application.services, UUID(upload["id"])).read_bytes()
    assert before == data
    assert (await complete(application, headers, upload)).status_code == 202
    assert (await put(application, address, b"\0" * len(piece))).status_code == 410, "nothing changes what is verified"
    assert part_file(application.services, UUID(upload["id"])).read_bytes() == data


async def test_completing_waits_for_a_part_that_is_being_written(application: Application) -> None:
    headers, data = await application.headers("owner"), package()
    upload = await begin(application, headers, data)
    await send(application, headers, upload, data, 1, 2, 3)
    [address] = await addresses(application, headers, upload, {"number": 3})
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield data[address["offset"] : -1]
        begun.set()
        await go_on.wait()
        yield data[-1:]

    again = asyncio.create_task(application.client.put(address["url"], headers=address["headers"], content=slow()))
    await begun.wait()
    completing = asyncio.create_task(complete(application, headers, upload))
    await asyncio.sleep(0)
    assert (await shown(application, headers, upload))["state"] == "receiving"
    go_on.set()
    assert (await again).status_code == 200
    assert (await completing).status_code == 202


async def test_what_no_store_could_take_is_refused(application: Application) -> None:
    headers = await application.headers("owner")
    for body in (
        {"length": 0, "sha256": "0" * 64},
        {"length": 5},
        {"length": 5, "sha256": "0" * 64, "blake3": "0" * 64},
        {"length": 5, "sha256": "short"},
        {"length": 5, "sha256": "0" * 64, "part_bytes": 1000},
        {"length": 1 << 36, "sha256": "0" * 64, "part_bytes": LEAST_PART_BYTES},
    ):
        answer = await application.client.post("/api/v1/uploads/direct", headers=headers, json=body)
        assert answer.status_code == 400, body


def test_parts_grow_with_the_upload_and_stay_within_what_a_store_counts() -> None:
    assert part_size(1, None) == 16 << 20
    for length in (1, 100 << 20, 160_000 << 20, 160_001 << 20, 5 << 40):
        size = part_size(length, None)
        assert -(-length // size) <= 10_000
        assert size % (1 << 20) == 0


def test_the_signature_is_the_one_of_the_published_example() -> None:
    """The presigned GET of the S3 documentation: `Authenticating Requests: Using Query Parameters`."""
    from datetime import UTC, datetime

    url = presigned(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
        lifetime_s=86400,
    )
    assert url.endswith("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_boto3_signs_the_same_address(s3_url: str) -> None:
    boto3 = pytest.importorskip("boto3")
    config = pytest.importorskip("botocore.config").Config
    endpoint = s3_url.partition("endpoint=")[2].partition("&")[0]
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1",
        config=config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )  # fmt: skip
    theirs = client.generate_presigned_url(
        "upload_part", Params={"Bucket": "b-1", "Key": "uploads/x y", "PartNumber": 2, "UploadId": "a/b"}, ExpiresIn=60
    )
    asked = httpx.URL(theirs).params
    from datetime import UTC, datetime

    ours = presigned(
        "PUT", f"{endpoint}/b-1/uploads/x%20y", credentials=Credentials(KEY, SECRET), region="us-east-1",
        now=datetime.strptime(asked["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC), lifetime_s=60,
        query={"partNumber": "2", "uploadId": "a/b"},
    )  # fmt: skip
    assert httpx.URL(ours).params["X-Amz-Signature"] == asked["X-Amz-Signature"]
