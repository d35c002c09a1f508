"""The models that come with the product. Networks open on first use. Imported only where models run (child.py)."""

from functools import cache

from annotomy.inference.runners.head import HeadRunner
from annotomy.inference.runners.hippocampus import HippocampusRunner
from annotomy.inference.runners.installed import MODELS_FOLDER
from annotomy.ports import ModelRunner


@cache
def builtin_runners(threads: int = 1) -> dict[str, ModelRunner]:
    """By name. One inference thread each: several predictions side by side are the workers' business."""
    head = HeadRunner(MODELS_FOLDER / "head", threads)
    return {"hippocampus": HippocampusRunner(MODELS_FOLDER / "hippocampus", head, threads), "head": head}


def builtin_runner(name: str, threads: int) -> ModelRunner:
    return builtin_runners(threads)[name]
