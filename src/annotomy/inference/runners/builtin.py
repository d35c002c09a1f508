"""The models that come with the product. Networks open on first use, so listing them is cheap."""

from functools import cache
from pathlib import Path

from annotomy.inference.runners.head import HeadRunner
from annotomy.inference.runners.hippocampus import HippocampusRunner
from annotomy.ports import ModelRunner

MODELS_FOLDER = Path(__file__).resolve().parent.parent / "models"


@cache
def builtin_runners(threads: int = 1) -> dict[str, ModelRunner]:
    """By name. One inference thread each: several predictions side by side are the workers' business."""
    head = HeadRunner(MODELS_FOLDER / "head", threads)
    return {"hippocampus": HippocampusRunner(MODELS_FOLDER / "hippocampus", head, threads), "head": head}
