"""`annotomy import` and `annotomy export` against a running server."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid

from annotomy.transfer.import_files import FileResult, watch_paths
from annotomy.transfer.upload import Sender, wait_until_taken_in
from annotomy.uploads.direct import LEAST_PART_BYTES
from tests.db.private_data import data_folder
from tests.support.dicom_files import ct_series
from tests.support.serve import Serve


@pytest.fixture(scope="module")
def running() -> Iterator[Serve]:
    with data_folder() as data:
        serve = Serve(data, ANNOTOMY_HTTP_PROCESSES="1", ANNOTOMY_WORKERS_INLINE="1").start()
        yield serve
        serve.stop()


def command(serve: Serve, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANNOTOMY_")}
    return subprocess.run(
        [sys.executable, "-m", "annotomy.cli", *map(str, arguments)],
        env=environment | {"ANNOTOMY_DATA": str(serve.data)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_series(folder: Path, slices: int = 3) -> str:
    study = str(generate_uid())
    folder.mkdir(parents=True)
    for number, data in enumerate(ct_series(slices, study_instance_uid=study)):
        (folder / f"slice{number}.dcm").write_bytes(data)
    return study


def states(output: str) -> dict[str, str]:
    """File name -> state, of the lines on standard output."""
    rows = [line.split("\t") for line in output.splitlines()]
    return {Path(row[1]).name: row[0] for row in rows}


def test_a_folder_with_everything_in_it_gets_a_word_on_each_file(running: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    study = write_series(folder / "series")
    inside = ct_series(2)
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for number, data in enumerate(inside):
            archive.writestr(f"a/{number}", data)
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
    nib.save(image, folder / "volume.nii.gz")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.dcm").write_bytes((folder / "series" / "slice0.dcm").read_bytes()[:400])

    done = command(running, "import", folder, "--project", "Everything")

    assert states(done.stdout) == {
        "slice0.dcm": "stored",
        "slice1.dcm": "stored",
        "slice2.dcm": "stored",
        "more.zip": "stored",
        "volume.nii.gz": "stored",
        "notes.txt": "skipped",
        "broken.dcm": "refused",
    }
    assert done.returncode == 1, "something was refused"
    assert "Project Everything is new." in done.stderr
    assert "7 files: 5 stored, 1 refused, 1 skipped; 3 studies in project Everything" in done.stderr
    with running.client() as client:
        projects = {one["name"]: one["id"] for one in client.get("/api/v1/projects").json()["items"]}
        held = client.get(f"/api/v1/projects/{projects['Everything']}/studies").json()["items"]
    assert study in {one["study_instance_uid"] for one in held}


def test_importing_again_changes_nothing_and_is_a_success(running: Serve, tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    first = command(running, "import", tmp_path / "in", "--project", "Twice")
    again = command(running, "import", tmp_path / "in", tmp_path / "in" / "slice0.dcm", "--project", "Twice")
    assert (first.returncode, again.returncode) == (0, 0)
    assert set(states(again.stdout).values()) == {"already"}
    assert len(states(again.stdout)) == 3, "a file that is named twice is one file"
    with running.client() as client:
        names = [one["name"] for one in client.get("/api/v1/projects").json()["items"]]
    assert names.count("Twice") == 1


def test_a_file_that_was_named_and_is_no_image_is_refused(running: Serve, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    done = command(running, "import", tmp_path / "notes.txt", "--project", "Notes")
    assert states(done.stdout) == {"notes.txt": "refused"}
    assert done.returncode == 1


def test_the_key_of_the_command_ends_with_it_and_an_unknown_user_is_told(running: Serve, tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1)
    assert command(running, "import", tmp_path / "in", "--project", "Keys").returncode == 0
    with running.client() as client:
        assert client.get("/api/v1/api-keys").json()["items"] == []
    refused = command(running, "import", tmp_path / "in", "--project", "Keys", "--user", "nobody")
    assert refused.returncode == 1
    assert "no active user nobody" in refused.stderr


def test_from_elsewhere_an_address_and_a_key_are_enough(running: Serve, tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1)
    key = command(running, "api-key", "create", "--user", "admin").stdout.strip()
    nowhere = Serve(tmp_path / "no-data-here")
    arguments = ("import", tmp_path / "in", "--project", "Remote", "--url", running.address, "--api-key")
    assert command(nowhere, *arguments, key).returncode == 0
    wrong = command(nowhere, *arguments, "annotomy_wrong")
    assert wrong.returncode == 1
    assert "HTTP 401" in wrong.stderr


def test_without_a_server_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1)
    done = command(Serve(tmp_path / "data"), "import", tmp_path / "in", "--project", "None")
    assert done.returncode == 1
    assert "./run serve" in done.stderr


def test_an_export_gives_back_the_bytes_and_overwrites_nothing(running: Serve, tmp_path: Path) -> None:
    study = write_series(tmp_path / "in")
    command(running, "import", tmp_path / "in", "--project", "Out")
    done = command(running, "export", "--study", study, "--to", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = {path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert out == {path.read_bytes() for path in (tmp_path / "in").iterdir()}
    again = command(running, "export", "--study", study, "--to", tmp_path / "out")
    assert again.returncode == 1
    assert "nothing was overwritten" in again.stderr
    missing = command(running, "export", "--study", "1.2.3", "--to", tmp_path / "nothing")
    assert (missing.returncode, (tmp_path / "nothing").exists()) == (1, False)


class _LosesAnswers(httpx.HTTPTransport):
    """The first parts reach the server; their answers never reach the client."""

    lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.method == "PUT" and self.lost < 2:
            self.lost += 1
            answer.close()
            raise httpx.ReadError("the line broke", request=request)
        return answer


class _Killed(Exception):
    pass


class _Dies(httpx.HTTPTransport):
    """The client is no more after two parts."""

    sent = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.sent += 1
            if self.sent > 2:
                raise _Killed
        return super().handle_request(request)


def test_a_client_that_starts_again_sends_only_the_parts_that_are_missing(running: Serve, tmp_path: Path) -> None:
    file = tmp_path / "study.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("noise", os.urandom(4 * LEAST_PART_BYTES))
        archive.writestr("1.dcm", ct_series(1)[0])
    with running.client() as client:
        project = client.post("/api/v1/projects", json={"name": "line"}).json()["id"]

        def sending(transport: httpx.HTTPTransport, sent: list[int]) -> Sender:
            sender = Sender(client, project, sent.append, part_bytes=LEAST_PART_BYTES)
            sender.parts_client = httpx.Client(base_url=running.address, transport=transport)
            return sender

        with pytest.raises(_Killed):
            sending(_Dies(), []).send(file, filename=file.name)
        losing, arrived = _LosesAnswers(), list[int]()
        address = sending(losing, arrived).send(file, filename=file.name)
        assert losing.lost == 2
        assert arrived[0] == 2 * LEAST_PART_BYTES, "what the first one sent is there"
        assert sum(arrived) == file.stat().st_size
        taken = wait_until_taken_in(client, address, waiting=lambda seconds: None)
    assert [one["state"] for one in taken["files"]] == ["refused", "stored"]


def test_a_watched_folder_brings_in_what_appears_once_it_is_whole(running: Serve, tmp_path: Path) -> None:
    told: list[FileResult] = []
    [data, more] = ct_series(2)
    arriving = tmp_path / "arriving.dcm"
    looks = iter(
        [
            lambda: arriving.write_bytes(data[:300]),
            lambda: arriving.write_bytes(data),
            lambda: None,
            lambda: (tmp_path / "next.dcm").write_bytes(more),
            lambda: None,
        ]
    )

    class _Enough(Exception):
        pass

    def pause(_: float) -> None:
        look = next(looks, None)
        if look is None:
            raise _Enough
        look()

    with running.client() as client:
        project = client.post("/api/v1/projects", json={"name": "watched"}).json()["id"]
        with pytest.raises(_Enough):
            watch_paths(
                client, [tmp_path], project_id=project, told=told.append, progress=lambda text: None, pause=pause
            )
    assert [(Path(one.path).name, one.state) for one in told] == [("arriving.dcm", "stored"), ("next.dcm", "stored")]


def test_a_new_password_ends_the_sessions_that_the_old_one_began(running: Serve) -> None:
    def set_password(action: str, password: str) -> None:
        arguments = [sys.executable, "-m", "annotomy.cli", "user", action, "forgetful", "--password-stdin"]
        environment = os.environ | {"ANNOTOMY_DATA": str(running.data)}
        subprocess.run(arguments, env=environment, input=password, text=True, check=True, timeout=60)

    def sign_in(password: str) -> httpx.Response:
        body = {"username": "forgetful", "password": password}
        return httpx.post(f"{running.address}/api/v1/auth/token", json=body, timeout=30)

    set_password("create", "the first one")
    session = sign_in("the first one").json()
    set_password("password", "the second one")
    body = {"refresh_token": session["refresh_token"]}
    assert httpx.post(f"{running.address}/api/v1/auth/refresh", json=body, timeout=30).status_code == 401
    assert sign_in("the first one").status_code == 401
    assert sign_in("the second one").status_code == 200
