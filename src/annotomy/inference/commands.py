"""`annotomy model`"""

import click

from annotomy.inference.runners.installed import installed_cards


@click.group()
def model() -> None:
    """AI models."""


@model.command("list")
def list_models() -> None:
    """List the installed models with version, modality and title."""
    for card in installed_cards():
        click.echo(f"{card.name:16} {card.version:10} {','.join(card.modalities):8} {card.title}")
