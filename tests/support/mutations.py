"""Real DICOM files, and seeded damage to them."""

import random
from collections.abc import Iterator
from pathlib import Path

import pydicom

MAX_SOURCE_BYTES = 200_000
"""Larger files give the same kinds of damage, slower."""


def packaged_files() -> list[Path]:
    """The DICOM files that pydicom ships, and those of pydicom-data where it is installed."""
    folders = [Path(pydicom.__file__).parent / "data"]
    try:
        import data_store  # pyright: ignore[reportMissingImports] - the package of pydicom-data

        folders.append(Path(data_store.__file__).parent)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    except ImportError:
        pass
    return sorted(path for folder in folders for path in folder.rglob("*") if is_dicom(path))


def is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def mutations(sources: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damage of the kinds that parsers die of, mostly in the header; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(count):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _damage(data, rng)
        yield bytes(data)


_LENGTHS = (0, 1, 2, 7, 8, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_PIECES = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\x08\x00\x00\x00", b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0", b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff", b"OB\0\0\xff\xff\xff\xff",
    b"\x08\x00\x05\x00CS\x10\x00ISO 2022 IR 149 ", b"\x28\x00\x08\x00IS\x06\x00999999", b"\x28\x00\x10\x00US\x02\x00\xff\xff",
    b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff", b"\0" * 16, b"../../../etc/", b"\x1b$)C", b"\xed\xa0\x80", b"\\\\\\\\", b"1e999999", b"NaN ",
)  # fmt: skip


def _damage(data: bytearray, rng: random.Random) -> None:
    end = min(len(data), rng.choice((300, 1000, 4000, len(data))))
    low = 132 if rng.random() < 0.15 else 340  # mostly behind the file meta information, where there is more to break
    at = rng.randrange(low, max(low + 1, end))
    kind = rng.randrange(8)
    if kind == 0:
        data[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == 1:
        data[at : at + 4] = rng.choice(_LENGTHS).to_bytes(4, "little")
    elif kind == 2:
        data[at : at + 2] = rng.choice(_LENGTHS).to_bytes(4, "little")[:2]
    elif kind == 3:
        del data[at : at + rng.choice((1, 2, 8, 64))]
    elif kind == 4:
        data[at:at] = rng.choice(_PIECES)
    elif kind == 5:
        piece = rng.choice(_PIECES)
        data[at : at + len(piece)] = piece
    elif kind == 6:
        del data[at:]
    else:
        length = rng.choice((4, 8, 32, 200))
        source = rng.randrange(132, max(133, len(data)))
        data[at:at] = data[source : source + length]
