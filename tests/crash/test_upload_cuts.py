"""Uploads that are cut at random are finished byte for byte, stored once, and leave nothing behind (`upload_cuts.py`)."""

import pytest

from tests.crash.upload_cuts import run


def test_uploads_survive_a_few_cuts() -> None:
    summary = run(cuts=6, most_bytes=4 << 20, seed=7)
    assert summary.cuts.total() >= 6


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("s3", "cuts"), [(False, 220), (True, 80)], ids=["files", "object store"])
def test_uploads_survive_300_cuts_over_files_of_up_to_4_gib(s3: bool, cuts: int) -> None:
    print(run(cuts=cuts, most_bytes=4 << 30, seed=11, s3=s3))
