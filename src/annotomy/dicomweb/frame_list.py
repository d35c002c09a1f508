"""The list of frames in a DICOMweb address (PS3.18 10.1.5)."""

from annotomy.errors import BadRequest, NotFound


def frame_numbers(text: str, number_of_frames: int) -> list[int]:
    """In the order asked for. Raises BadRequest, and NotFound for a frame that the instance does not have."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise BadRequest("Frames are named by whole numbers from 1, separated by commas.")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) != len(numbers):
        raise BadRequest("Each frame is named once.")  # a short address must not ask for a frame a thousand times
    if any(not 1 <= number <= number_of_frames for number in numbers):
        raise NotFound(f"The instance has the frames 1 to {number_of_frames}.")
    return numbers
