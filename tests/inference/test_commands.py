"""`annotomy model` on the command line."""

from click.testing import CliRunner

from annotomy.cli import main


def test_model_list_names_each_installed_model_with_its_version() -> None:
    told = CliRunner().invoke(main, ["model", "list"])
    assert told.exit_code == 0
    assert [line.split()[:3] for line in told.output.splitlines()] == [
        ["head", "0.2.0", "MR"],
        ["hippocampus", "1.0.0", "MR"],
    ]
