"""What the archive keeps of a file: only what a database holds and what can be told again, however damaged the file is."""

import json
import logging
import warnings

import pytest

from annotomy.archive.errors import NotDicom
from annotomy.archive.parse import ParsedInstance, parse_instance
from annotomy.archive.retrieve import InstanceLocation
from annotomy.db.engine import _to_json  # pyright: ignore[reportPrivateUsage] - what the columns go through
from annotomy.dicomweb.metadata import metadata_json
from tests.support.dicom_files import ct_series
from tests.support.mutations import MAX_SOURCE_BYTES, mutations, packaged_files

MUTATIONS = 2000
LONG_MUTATIONS = 100_000


def _check(count: int, seed: int) -> None:
    sources = [path.read_bytes() for path in packaged_files() if path.stat().st_size <= MAX_SOURCE_BYTES]
    kept = 0
    logging.disable(logging.CRITICAL)  # pydicom warns of every oddity
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for data in mutations([*sources, *ct_series(1)], count, seed):
                try:
                    parsed = parse_instance(data)
                except NotDicom:
                    continue
                kept += 1
                _assert_tells_again(parsed)
    finally:
        logging.disable(logging.NOTSET)
    assert kept > count // 20, "most damage must leave something to check"


def _assert_tells_again(parsed: ParsedInstance) -> None:
    for columns in (parsed.study_columns, parsed.series_columns, parsed.instance_columns):
        text = _to_json(columns["attributes"])
        json.loads(text)
        text.encode()
        for value in columns.values():
            assert not isinstance(value, str) or "\0" not in value
    at = InstanceLocation(
        1, parsed.study_instance_uid, parsed.series_instance_uid, parsed.sop_instance_uid, parsed.sop_class_uid,
        parsed.instance_columns["transfer_syntax_uid"], parsed.instance_columns["number_of_frames"], "", 1,
    )  # fmt: skip
    [told] = json.loads(metadata_json([at], [parsed.header]))
    assert told["0020000D"]["Value"] == [parsed.study_instance_uid]
    assert told["00080018"]["Value"] == [parsed.sop_instance_uid]


def test_what_is_kept_of_a_damaged_file_can_be_stored_and_told_again() -> None:
    _check(MUTATIONS, seed=20260703)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_what_is_kept_of_a_hundred_thousand_damaged_files_can_be_stored_and_told_again() -> None:
    _check(LONG_MUTATIONS, seed=20260704)


def test_a_header_is_told_as_the_file_says_even_against_the_rules() -> None:
    [data] = ct_series(1, study_instance_uid="1.2.03.4")
    _assert_tells_again(parse_instance(data))


def test_a_text_that_spells_an_escaped_nul_stays_as_it_is() -> None:
    assert json.loads(_to_json({"a": "\\u0000b", "c": "x\0y"})) == {"a": "\\u0000b", "c": "xy"}
