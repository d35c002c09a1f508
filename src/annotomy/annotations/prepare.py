"""From what a client sends to what is written: everything that is checked and measured before the write transaction."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgspec

from annotomy.annotations import rights
from annotomy.annotations.errors import InvalidAnnotation, OutsideFrame
from annotomy.annotations.frames import Image, find_image, frame_geometry, frame_pixels
from annotomy.annotations.geometry import ONLY_PATIENT, Geometry, checked, map_to_frame
from annotomy.annotations.labels import label_from_set
from annotomy.annotations.measure import Measurement, measure
from annotomy.annotations.schemas import MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES, Content, NewAnnotation
from annotomy.db.engine import ReadTx
from annotomy.projects.access import visible_series
from annotomy.services import Services


@dataclass(frozen=True, slots=True)
class Target:
    """What an annotation is bound to, for good."""

    project_id: UUID
    study_id: int | None
    study_instance_uid: str
    series_instance_uid: str | None
    sop_instance_uid: str | None
    frame_number: int | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A content that may be written once it is measured. `measurements` holds the server's own, then the reported ones."""

    target: Target
    content: Content
    mapped_geometry: Geometry | None = None
    measurements: tuple[Measurement, ...] = ()
    image: Image | None = None
    """What it lies on, where the archive holds it."""
    is_measured: bool = False

    def measured_as(self, before: "Prepared") -> "Prepared":
        """With what was measured before on the same shape."""
        kept = tuple(one for one in before.measurements if one.source == "server")
        return replace(
            self,
            mapped_geometry=before.mapped_geometry,
            measurements=(*kept, *self.content.measurements),
            is_measured=True,
        )


async def prepare_new(tx: ReadTx, new: NewAnnotation) -> Prepared:
    """Rights, target and content checked. Raises NotFound, Forbidden, InvalidAnnotation and what they are told by."""
    await rights.require_right(tx, rights.Action.CREATE, new.project_id)
    target, image = await _bind(tx, new)
    content = Content(
        kind=new.kind,
        geometry=new.geometry,
        label=new.label,
        attributes=new.attributes,
        measurements=new.measurements,
        description=new.description,
    )
    return replace(await prepare_content(tx, target, content), image=image)


async def image_of(tx: ReadTx, target: Target) -> Image | None:
    if target.sop_instance_uid is None or target.study_id is None:
        return None
    return (await find_image(tx, target.study_instance_uid, target.sop_instance_uid))[1]


async def prepare_content(tx: ReadTx, target: Target, content: Content, *, before: Content | None = None) -> Prepared:
    """The content checked; what it is bound to is taken as given. `before` is what an edit starts from."""
    geometry = checked(content.geometry)
    _check_kind(content, target)
    _check_texts(content)
    label = content.label
    if before is None or label != before.label or content.attributes != before.attributes:
        label = await label_from_set(tx, target.project_id, label, content.attributes)
    reported = [msgspec.structs.replace(one, source="client") for one in content.measurements if one.source != "server"]
    return Prepared(target, msgspec.structs.replace(content, geometry=geometry, label=label, measurements=reported))


async def complete(services: Services, prepared: Prepared) -> Prepared:
    """With the shape in the other space and the server's measurements. Reads pixels; not for a transaction."""
    if prepared.is_measured:
        return prepared
    geometry, image = prepared.content.geometry, prepared.image
    mapped = frame = pixels = None
    if image is not None and geometry.type != "none" and geometry.type not in ONLY_PATIENT:
        frame_index = (prepared.target.frame_number or 1) - 1
        frame = frame_geometry(image, frame_index)
        mapped = map_to_frame(geometry, frame)
        if geometry.is_region or geometry.type in ("point", "probe"):
            pixels = await frame_pixels(services, image, frame_index)
    measured = measure(geometry, mapped, frame, pixels)
    return replace(
        prepared,
        mapped_geometry=mapped,
        measurements=(*measured, *prepared.content.measurements),
        is_measured=True,
    )


async def _bind(tx: ReadTx, new: NewAnnotation) -> tuple[Target, Image | None]:
    """The target, checked against what the archive holds of it."""
    study_id = await rights.find_target(tx, new.project_id, new.study_instance_uid, new.series_instance_uid)
    if new.frame_number is not None and new.sop_instance_uid is None:
        raise InvalidAnnotation("A frame belongs to an instance: send sop_instance_uid.", field="frame_number")
    target = Target(
        new.project_id,
        study_id,
        new.study_instance_uid,
        new.series_instance_uid,
        new.sop_instance_uid,
        new.frame_number,
    )
    if new.sop_instance_uid is None:
        await _check_series(tx, target)
        return target, None
    location, image = await find_image(tx, new.study_instance_uid, new.sop_instance_uid)
    if location is None:
        await _check_series(tx, target)
        return target, None
    if location.study_instance_uid != new.study_instance_uid:
        raise InvalidAnnotation("The instance belongs to another study.", field="sop_instance_uid")
    if new.series_instance_uid not in (None, location.series_instance_uid):
        raise InvalidAnnotation("The instance belongs to another series.", field="sop_instance_uid")
    frames = location.number_of_frames
    if new.frame_number is not None and new.frame_number > max(frames, 1):
        raise OutsideFrame(f"The instance has {max(frames, 1)} frames.", field="frame_number", number_of_frames=frames)
    if new.frame_number is None and frames > 1 and new.geometry.type not in (*ONLY_PATIENT, "none"):
        raise InvalidAnnotation("The instance has several frames: send frame_number.", field="frame_number")
    return replace(target, series_instance_uid=location.series_instance_uid), image


async def _check_series(tx: ReadTx, target: Target) -> None:
    if target.study_id is None or target.series_instance_uid is None:
        return
    of_study = await tx.fetchval(
        "select bool_or(st.study_instance_uid = $2) from series se join studies st on st.id = se.study_id"
        f" where se.series_instance_uid = $1 and {visible_series('se')}",
        target.series_instance_uid, target.study_instance_uid,
    )  # fmt: skip
    if of_study is False:
        raise InvalidAnnotation("The series belongs to another study.", field="series_instance_uid")


def _check_kind(content: Content, target: Target) -> None:
    if content.kind == "key_image":
        if target.sop_instance_uid is None:
            raise InvalidAnnotation("A key image names its sop_instance_uid.", field="sop_instance_uid")
        if content.geometry.type != "none":
            raise InvalidAnnotation("A key image has a geometry of type none.", field="geometry")
    if content.geometry.space == "pixel" and target.sop_instance_uid is None:
        raise InvalidAnnotation("Pixels belong to an instance: send sop_instance_uid.", field="sop_instance_uid")


MAX_LABEL = 200
MAX_CODE = 64
MAX_UNIT = 64


def _check_texts(content: Content) -> None:
    """PostgreSQL and DICOM keep no NUL; limits of codes are those of SH, LO and UC (PS3.5 6.2), a little wider."""
    texts: list[tuple[str, str, int]] = [("description", content.description, 1 << 30)]
    match content.label:
        case None:
            pass
        case str() as text:
            if not text.strip():
                raise InvalidAnnotation("A label has a text; leave it out for none.", field="label")
            texts.append(("label", text, MAX_LABEL))
        case code:
            if not code.value.strip() or not code.scheme.strip():
                raise InvalidAnnotation("A coded label has a value and a scheme.", field="label")
            texts += [("label", code.value, MAX_CODE), ("label", code.scheme, 16), ("label", code.meaning, MAX_LABEL)]
    for one in content.measurements:
        texts += [("measurements", one.name, MAX_CODE), ("measurements", one.unit, MAX_UNIT)]
        if one.concept is not None:
            concept = one.concept
            texts += [("measurements", text, MAX_LABEL) for text in (concept.value, concept.scheme, concept.meaning)]
    for field, text, limit in texts:
        if "\0" in text or len(text) > limit:
            raise InvalidAnnotation(f"A text is too long or holds NUL; at most {limit} characters.", field=field)
    _check_attributes(content.attributes)


def _check_attributes(attributes: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(attributes)
    if len(attributes) > MAX_ATTRIBUTES or len(encoded) > MAX_ATTRIBUTES_BYTES or b"\\u0000" in encoded:
        raise InvalidAnnotation(
            f"At most {MAX_ATTRIBUTES} attributes and {MAX_ATTRIBUTES_BYTES} bytes of JSON, without NUL.",
            field="attributes",
        )
    for name in attributes:
        if not name or len(name) > MAX_CODE or "." in name:
            raise InvalidAnnotation(
                "An attribute's name has 1 to 64 characters, none of them a dot.", field="attributes"
            )
