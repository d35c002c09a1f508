"""Which models are installed: the built-in ones, known by their cards. Listing them opens no network."""

from pathlib import Path

import msgspec

from annotomy.inference.runners.isolated import IsolatedRunner, ModelProcess
from annotomy.ports import ModelCard, ModelRunner

MODELS_FOLDER = Path(__file__).resolve().parent.parent / "models"
BUILTIN = ("head", "hippocampus")
BUILTIN_FACTORY = "annotomy.inference.runners.builtin:builtin_runner"


def installed_cards() -> list[ModelCard]:
    return [read_card(MODELS_FOLDER / name) for name in BUILTIN]


def installed_runners(process: ModelProcess) -> dict[str, ModelRunner]:
    """By name, all run in the given process."""
    return {card.name: IsolatedRunner(process, card, BUILTIN_FACTORY) for card in installed_cards()}


def read_card(folder: Path) -> ModelCard:
    return msgspec.json.decode((folder / "card.json").read_bytes(), type=ModelCard)
