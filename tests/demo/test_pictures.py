"""The overlay picture: planes the way radiologists look at them, colour where the segmentation is and nowhere else."""

from pathlib import Path

import numpy as np
from PIL import Image

from annotomy.demo.pictures import Shown, draw_overlay
from tests.support.browser import saturation

SHAPE = (60, 80, 50)


def test_right_is_left_front_is_up_and_colour_is_the_segments(tmp_path: Path) -> None:
    """A grey box with a bright mark at the patient's right front, and a segment at the left back."""
    image = np.zeros(SHAPE, np.float32)
    image[5:55, 5:75, 5:45] = 100
    image[45:53, 60:73, 20:30] = 200  # RAS: high i is the patient's right, high j the front
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:20, 8:25, 20:30] = 3
    path = tmp_path / "deep" / "overlay.png"
    shown = [Shown(3, "thing", "#ff0000", 2.04)]
    draw_overlay(image, labels, (1.0, 1.0, 1.0), shown, title="title", subtitle="subtitle", path=path)

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int16)
    colour = np.argwhere(saturation(pixels) > 60)
    assert np.all(pixels[tuple(colour.T)].argmax(axis=1) == 0), "only red"
    panels = _panels(pixels)
    assert len(panels) == 3
    axial = pixels[:, panels[0]]
    bright = np.argwhere((axial.min(axis=-1) > 180) & (saturation(axial) < 10))
    # Letters are bright too, but few; the mark is the mass.
    middle = np.median(bright, axis=0)
    red = np.median(np.argwhere(saturation(axial) > 60), axis=0)
    assert middle[1] < red[1], "the patient's right is at the left"
    assert middle[0] < red[0], "the front is up"


def test_two_pictures_of_the_same_are_the_same_bytes(tmp_path: Path) -> None:
    image = np.random.default_rng(1).random(SHAPE, np.float32)
    labels = (image > 0.99).astype(np.uint8)
    for name in ("a.png", "b.png"):
        draw_overlay(
            image, labels, (1, 1, 2), [Shown(1, "x", "#00ff00", 1)], title="t", subtitle="s", path=tmp_path / name
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def _panels(pixels: np.ndarray) -> list[slice]:
    """Runs of columns in which there is an image, in the band between header and footer."""
    band = pixels[90:-90].max(axis=-1)
    black_or_image = (band.max(axis=0) > 40) | (band.min(axis=0) < 5)
    edges = np.flatnonzero(np.diff(np.r_[0, black_or_image.astype(int), 0]))
    runs = [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [run for run in runs if run.stop - run.start > 40]
