"""Attributes that QIDO-RS is asked to include beyond those in the index (PS3.18 8.3.4.3): read from kept headers.

Those of a study or a series are read from its first instance that the asker sees.
"""

import asyncio
import io
from typing import Any, Final

import zstandard
from pydicom import dcmread

from annotomy.archive.parse import INSTANCE_KEYWORDS, SERIES_KEYWORDS, STUDY_KEYWORDS
from annotomy.archive.query import Level
from annotomy.archive.retrieve import MAX_HEADER_BYTES
from annotomy.db.engine import ReadTx
from annotomy.dicom.attributes import tags_of, whole_json_of
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.projects.access import visible_instances

MAX_ROWS: Final = 500
"""Headers read for one answer, each unpacked: about a millisecond apiece."""
MAX_VALUE_BYTES: Final = 4096
"""Larger binary values are left out: they are bulk data."""
FieldPath = tuple[int, ...]
"""The tag of an attribute, with those of the sequences around it before."""
_KEYS: Final[dict[Level, tuple[str, str]]] = {
    "study": ("0020000D", "st.study_instance_uid"),
    "series": ("0020000E", "se.series_instance_uid"),
    "instance": ("00080018", "i.sop_instance_uid"),
}


_TAGS: Final = {
    keyword: tag for keyword, (tag, _) in tags_of({*STUDY_KEYWORDS, *SERIES_KEYWORDS, *INSTANCE_KEYWORDS}).items()
}
INDEXED: Final[dict[Level, frozenset[int]]] = {
    "study": frozenset(_TAGS[one] for one in STUDY_KEYWORDS),
    "series": frozenset(_TAGS[one] for one in (*STUDY_KEYWORDS, *SERIES_KEYWORDS)),
    "instance": frozenset(_TAGS.values()),
}
"""What the rows of each level have without a look at headers."""


async def headers_of_rows(tx: ReadTx, level: Level, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """The UID of each row and a header (zstd) that speaks for it."""
    tag, column = _KEYS[level]
    uids = [row[tag]["Value"][0] for row in rows]
    found = await tx.fetch(
        f"select k.uid, h.header from unnest($1::text[]) k (uid) cross join lateral ("
        " select i.id from instances i join series se on se.id = i.series_id join studies st on st.id = i.study_id"
        f" where {column} = k.uid and {visible_instances('i')}"
        " order by se.series_number nulls last, se.id, i.instance_number nulls last, i.id limit 1) one"
        " join instance_headers h on h.instance_id = one.id",
        uids,
    )
    return {row["uid"]: row["header"] for row in found}


async def include(level: Level, rows: list[dict[str, Any]], headers: dict[str, bytes], fields: list[FieldPath]) -> None:
    """Adds the attributes to the rows, in a thread. What a row has already stays."""
    await asyncio.to_thread(_include, _KEYS[level][0], rows, headers, _tree(fields))


_Tree = dict[int, "_Tree | None"]
"""Tags and what is wanted of the items of a sequence; None: all of it."""


def _tree(fields: list[FieldPath]) -> _Tree:
    tree: _Tree = {}
    for path in fields:
        at = tree
        for tag in path[:-1]:
            below = at.setdefault(tag, {})
            if below is None:
                break  # wanted whole already
            at = below
        else:
            at[path[-1]] = None
    return tree


def _include(key: str, rows: list[dict[str, Any]], headers: dict[str, bytes], tree: _Tree) -> None:
    for row in rows:
        header = headers.get(row[key]["Value"][0])
        if header is not None:
            for tag, value in _attributes(header, tree).items():
                row.setdefault(tag, value)


def _attributes(header: bytes, tree: _Tree) -> dict[str, Any]:
    plain = zstandard.ZstdDecompressor().decompress(header, max_output_size=MAX_HEADER_BYTES)
    try:
        read = dcmread(io.BytesIO(plain), stop_before_pixels=True, specific_tags=[*tree])
    except UNREADABLE:  # an odd element of this instance: it adds nothing to its row
        return {}
    found = whole_json_of(read, MAX_VALUE_BYTES, lambda _: "")
    return _pruned(found, tree)  # the character set is read besides


def _pruned(found: dict[str, Any], tree: _Tree) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for tag, below in tree.items():
        value = found.get(f"{tag:08X}")
        if value is None or value.get("BulkDataURI") == "":
            continue
        if below is not None and value["vr"] == "SQ":
            # Every item, also one without what was asked: its place says which one it is (PS3.18 F.2.2).
            value = {"vr": "SQ", "Value": [_pruned(item, below) for item in value.get("Value", [])]}
        elif below is not None:
            continue  # no sequence, so that nothing is inside of it
        kept[f"{tag:08X}"] = value
    return kept
