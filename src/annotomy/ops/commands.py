"""The command `doctor`."""

import asyncio
import sys

import click

from annotomy.settings import Settings

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command("doctor")
def doctor_command() -> None:
    """Print the effective settings and check everything that the server needs.

    The exit status is 0 when nothing fails (warnings are allowed), else 1.
    """
    from annotomy.ops.doctor import Finding, effective_settings, examine

    settings = Settings.from_environment()
    click.echo("Settings")
    rows = list(effective_settings(settings))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"  {name:<{width}}  {value}")
    click.echo("Checks")

    async def check() -> list[Finding]:
        found: list[Finding] = []
        async for finding in examine(settings):
            found.append(finding)
            mark, color = _MARKS[finding.state]
            click.echo(f"  {click.style(mark, fg=color)}  {finding.part}: {finding.text}")
            if finding.remedy:
                click.echo(f"        {finding.remedy}")
        return found

    found = asyncio.run(check())
    counts = {state: sum(one.state == state for one in found) for state in _MARKS}
    click.echo(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    if counts["fail"]:
        sys.exit(1)
