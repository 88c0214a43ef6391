"""`keyark policy`: which rules are in effect, what they would do, and putting changed ones in force."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from keyark.cli.options import home_option, identity_option, identity_password_option, json_option, needs
from keyark.cli.output import KeyarkGroup, print_json, say
from keyark.deployment.commands import check_policies, reload_policies
from keyark.errors.commands import UsageError


@click.group(cls=KeyarkGroup)
def policy() -> None:
    """Check, try and reload the rules that decide on certificates and recoveries."""


@policy.command("check")
@home_option
@json_option
@needs("server")
def check(home: Path, *, as_json: bool) -> None:
    """Check the policies in the three services' files, and show their rules by stage."""
    _print_lines(check_policies(home), as_json=as_json)


@policy.command("reload")
@home_option
@json_option
@needs("server")
def reload(home: Path, *, as_json: bool) -> None:
    """Have the running services use the policies in their files. If one file is wrong, none is used."""
    _print_lines(reload_policies(home), as_json=as_json)


def _print_lines(lines: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json([{"service": line[: line.index(":")], "line": line.partition(": ")[2]} for line in lines])
        return
    for line in lines:
        say(line)


@policy.command("test")
@home_option
@click.option(
    "--request",
    type=click.Path(path_type=Path),
    help="A TOML file with [[request]] sections, as docs/policy.md describes.",
)
@click.option("--last", type=click.IntRange(1, 100_000), help="Try this many of the latest enrollments.")
@click.option(
    "--rm", type=click.Path(path_type=Path), help="An rm.toml to try instead of the one in the home."
)
@click.option("--drm", type=click.Path(path_type=Path), help="A drm.toml to try.")
@click.option("--cm", type=click.Path(path_type=Path), help="A cm.toml to try.")
@identity_option("officer/officer")
@identity_password_option
@json_option
@needs("server")
def test(home: Path, **options: Any) -> None:
    """Show what each rule would do with made-up or past requests, and change nothing. Exits with 3 if one is
    rejected.
    """
    if (options["request"] is None) == (options["last"] is None):
        raise UsageError("Name a file with --request, or say --last N.")
    importlib.import_module("keyark.cli.operators.policy_trial").try_policies(
        home, options
    )  # with all that rules need
