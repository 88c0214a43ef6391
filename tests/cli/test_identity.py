"""Which identity a command acts as where --as does not say it."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from keyark.cli.main import main
from keyark.cli.options import home_option, identity_option
from tests.cli.test_words import takers


@click.command()
@home_option
@identity_option("auditor/auditor")
def acting(home: Path, identity: str) -> None:
    click.echo(identity)


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["ann"], [], "auditor/ann"),
        (["auditor"], [], "auditor/auditor"),
        (["ann", "auditor"], [], "auditor/auditor"),
        (["ann", "zoe"], [], "auditor/auditor"),
        ([], [], "auditor/auditor"),
        (["ann"], ["--as", "auditor/zoe"], "auditor/zoe"),
    ],
)
@pytest.mark.parametrize("by_environment", ["by option", "by environment"])
def test_the_only_identity_of_the_role_acts(
    tmp_path: Path, names: list[str], given: list[str], expected: str, by_environment: str
) -> None:
    for role, name in [("agent", "alice"), *(("auditor", name) for name in names)]:
        (tmp_path / "identities" / role / name).mkdir(parents=True)
        (tmp_path / "identities" / role / name / "key.pem").touch()
    if by_environment == "by environment":
        done = CliRunner().invoke(acting, given, env={"KEYARK_HOME": str(tmp_path)})
    else:
        done = CliRunner().invoke(acting, [*given, "--home", str(tmp_path)])
    assert done.output == f"{expected}\n"


def test_help_names_the_default() -> None:
    assert "auditor/auditor, or the home's only auditor" in " ".join(
        CliRunner().invoke(acting, ["--help"]).output.split()
    )


def test_every_command_reads_the_home_before_it_looks_for_its_identity() -> None:
    declared: dict[tuple[str, ...], list[str | None]] = {}
    for path, parameter in takers(main):
        declared.setdefault(path, []).append(parameter.name)
    acting_commands = [
        names for path, names in declared.items() if "identity" in names and path[0] != "identities"
    ]
    assert len(acting_commands) > 20
    for names in acting_commands:
        assert names.index("home") < names.index("identity")
