"""`keyark identities`: certificates of services and people, renewed before they end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from keyark.cli.certificates import days
from keyark.cli.options import home_option, json_option
from keyark.cli.output import KeyarkGroup, UsageError, print_json
from keyark.client.findings import SECONDS_PER_DAY
from keyark.deployment.authority import DeploymentAuthority
from keyark.deployment.identities import IdentityRenewal


@click.group(cls=KeyarkGroup)
def identities() -> None:
    """Who takes part in a deployment: its services and people."""


@identities.command("renew")
@click.argument("names", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All of them, however long they are still valid.")
@click.option("--within", help="Those that end within this time: days (30d) or weeks (4w).")
@click.option(
    "--authority",
    type=click.Path(file_okay=False, path_type=Path),
    help="The authority's folder; HOME/authority otherwise.",
)
@home_option
@json_option
def renew(
    *,
    names: tuple[str, ...],
    everyone: bool,
    within: str | None,
    authority: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """New keys and certificates for NAMES (rm, client/alice); running services take them at once."""
    if (bool(names), everyone, within is not None).count(True) != 1:
        raise UsageError("Say whom to renew: names, or --all, or --within 30d.")
    renewal = IdentityRenewal(home=home, authority=DeploymentAuthority.load(authority or home / "authority"))
    if within is not None:
        names = tuple(renewal.due(days(within) * SECONDS_PER_DAY))
    renewed = renewal.renew(tuple(renewal.identities()) if everyone else names)
    if as_json:
        print_json([{"name": one.name, "not_after": one.not_after, "note": one.note} for one in renewed])
        return
    for one in renewed:
        until = datetime.fromtimestamp(one.not_after, UTC)
        click.echo(f"{one.name}: valid until {until:%Y-%m-%d}{f'; {one.note}' if one.note else ''}")
    if not renewed:
        click.echo("nothing is due")
