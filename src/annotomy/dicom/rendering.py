"""How a frame is shown (PS3.18 8.3.5): window, region and size, annotation, colour profile, form of the picture.

Pure, and run in the decoding child: a colour profile and a header come from the file like its pixels do.
"""

import io
from typing import Any, Final, Literal

import msgspec
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from annotomy.dicom.attributes import text_of
from annotomy.dicom.pixels import PixelError, render_values

MAX_VIEWPORT: Final = 8192
"""Columns or rows of a picture that is made: above any screen, and 256 MiB of colour at most."""
DEFAULT_QUALITY: Final = 90
PNG_LEVEL: Final = 1
"""Of zlib's 9: a tenth larger than its default 6, in half the time or less; a picture is looked at once."""
_FORMATS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}
MEDIA_TYPES: Final = tuple(_FORMATS)

WindowFunction = Literal["linear", "linear-exact", "sigmoid"]


class Viewport(msgspec.Struct, frozen=True):
    """Fit the region of the frame into width x height. A negative region side turns the picture round on that axis."""

    width: int | None
    height: int | None
    """None is not bounded; without both the region keeps its size."""
    region: tuple[float, float, float | None, float | None] = (0, 0, None, None)
    """Left, top, width, height in pixels of the frame; None reaches to its edge."""
    relative: bool = False
    """The region is in shares of the frame."""


class Presentation(msgspec.Struct, frozen=True):
    media_type: str = "image/jpeg"
    window: tuple[float, float] | None = None
    """(centre, width) in modality units; None is the one of the header."""
    function: WindowFunction = "linear"
    viewport: Viewport | None = None
    max_side: int | None = None
    quality: int = DEFAULT_QUALITY
    """1 to 100, of JPEG."""
    annotation: tuple[Literal["patient", "technique"], ...] = ()
    icc_profile: Literal["no", "yes", "srgb"] = "no"


def picture_of(dataset: Dataset, values: NDArray[Any], presentation: Presentation) -> bytes:
    """The finished picture of one decoded frame. Raises PixelError."""
    pixels = render_values(dataset, values, presentation.window, presentation.function)
    picture = Image.fromarray(pixels)
    if presentation.viewport is not None:
        picture = _fitted(picture, presentation.viewport)
    if presentation.max_side is not None:
        picture.thumbnail((presentation.max_side, presentation.max_side))
    profile = _profile(dataset) if picture.mode == "RGB" and presentation.icc_profile != "no" else None
    if presentation.icc_profile == "srgb" and picture.mode == "RGB":
        picture, profile = _to_srgb(picture, profile)
    if presentation.annotation:
        picture = _annotated(picture, _lines(dataset, presentation.annotation))
    buffer = io.BytesIO()
    options: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
    if presentation.media_type == "image/jpeg":
        options["quality"] = presentation.quality
    elif presentation.media_type == "image/png":
        options["compress_level"] = PNG_LEVEL
    picture.save(buffer, _FORMATS[presentation.media_type], **options)
    return buffer.getvalue()


def _fitted(picture: Image.Image, viewport: Viewport) -> Image.Image:
    left, top, width, height = viewport.region
    width = picture.width - left if width is None else width
    height = picture.height - top if height is None else height
    if viewport.relative:
        left, top, width, height = (
            share * whole for share, whole in zip((left, top, width, height), picture.size * 2, strict=True)
        )
    right, bottom = left + abs(width), top + abs(height)
    edge = 1e-6 * max(picture.size)  # shares of a side need not end on its last pixel exactly
    inside = 0 <= left < right <= picture.width + edge and 0 <= top < bottom <= picture.height + edge
    if not inside:
        raise PixelError("The region of the viewport is not inside of the frame.")
    right, bottom = min(right, picture.width), min(bottom, picture.height)
    bounds = ((viewport.width, right - left), (viewport.height, bottom - top))
    scale = min((bound / given for bound, given in bounds if bound is not None), default=1.0)
    if max(right - left, bottom - top) * scale > MAX_VIEWPORT + 1:
        raise PixelError("The picture would be larger than is made.")
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    if width < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if height < 0 else picture


def _profile(dataset: Dataset) -> bytes | None:
    """The profile of the image, or of its optical path (PS3.3 C.11.15)."""
    profile = dataset.get("ICCProfile")
    if profile is None and dataset.get("OpticalPathSequence"):
        profile = dataset.OpticalPathSequence[0].get("ICCProfile")
    return bytes(profile) if profile else None


def _to_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes]:
    """Colour without a profile is taken for sRGB, which is what viewers do with it."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    if profile is not None:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, given, srgb)
        except (ImageCms.PyCMSError, OSError) as error:
            raise PixelError("The colour profile of the image cannot be applied.") from error
        assert converted is not None, "it was not asked to change the picture in place"
        picture = converted
    return picture, srgb.tobytes()


def _lines(dataset: Dataset, kinds: tuple[str, ...]) -> list[str]:
    """What PS3.18 8.3.5.1.1 calls patient and technique. The font has Latin letters: names come as their first group."""
    lines: list[str] = []
    if "patient" in kinds:
        name = text_of(dataset, "PatientName").split("=", maxsplit=1)[0].replace("^", " ")
        lines += [name, *(text_of(dataset, one) for one in ("PatientID", "PatientBirthDate", "PatientSex"))]
    if "technique" in kinds:
        lines.append(" ".join(text_of(dataset, one) for one in ("Modality", "SeriesDescription")))
        for label, keyword in (("kVp", "KVP"), ("mm", "SliceThickness"), ("C", "WindowCenter"), ("W", "WindowWidth")):
            if text := text_of(dataset, keyword).split("\\")[0]:
                lines.append(f"{label} {text}")
    return [line.strip()[:64] for line in lines if line.strip()]


def _annotated(picture: Image.Image, lines: list[str]) -> Image.Image:
    """White on a black edge in the top-left corner, readable on any picture."""
    size = max(10, min(picture.size) // 32)
    pen = ImageDraw.Draw(picture)
    white, black = (255, 0) if picture.mode == "L" else ((255, 255, 255), (0, 0, 0))
    pen.multiline_text(
        (4, 4), "\n".join(lines), fill=white, stroke_fill=black, stroke_width=1, font=ImageFont.load_default(size)
    )
    return picture
