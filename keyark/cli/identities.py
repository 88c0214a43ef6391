"""`keyark identities`: certificates of services and people, renewed before they end, or revoked."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from cryptography import x509

from keyark.cli.certificates import days
from keyark.cli.options import F, home_option, json_option
from keyark.cli.output import KeyarkGroup, UsageError, print_json, say
from keyark.cli.revocation import REASONS
from keyark.client.findings import SECONDS_PER_DAY
from keyark.deployment.authority import DeploymentAuthority
from keyark.deployment.identities import IdentityRenewal
from keyark.deployment.revocation import IdentityRevocation
from keyark.pki.revoked_identities import IDENTITY_LIST


@click.group(cls=KeyarkGroup)
def identities() -> None:
    """Who takes part in a deployment: its services and people."""


def _authority_options(function: F) -> F:
    """--authority DIR, and --home DIR for what lies on the same machine."""
    authority = click.option(
        "--authority",
        type=click.Path(file_okay=False, path_type=Path),
        help="The authority's folder; HOME/authority otherwise.",
    )
    home = click.option(
        "--home",
        envvar="KEYARK_HOME",
        type=click.Path(file_okay=False, path_type=Path),
        help="The deployment's folder, where it is on this machine.",
    )
    return authority(home(function))


def _open(authority: Path | None, home: Path | None) -> DeploymentAuthority:
    if authority is None and home is None:
        raise UsageError("Name the authority's folder with --authority, or the deployment's with --home.")
    return DeploymentAuthority.load(authority or Path(home or "") / "authority")


@identities.command("list")
@_authority_options
@json_option
def show(*, authority: Path | None, home: Path | None, as_json: bool) -> None:
    """All certificates that the authority issued to services and people, and which of them are revoked."""
    opened = _open(authority, home)
    revoked = opened.revoked().serials
    rows = [asdict(one) | {"revoked": int(one.serial, 16) in revoked} for one in opened.issued.entries()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "revoked" if row["revoked"] else f"until {_day(row['not_after'])}"
        say(f"{row['identity']:<24} {row['serial']:<40} {state}")


@identities.command("revoke")
@click.argument("names", nargs=-1)
@click.option(
    "--reason", required=True, type=click.Choice(list(REASONS)), help="As in RFC 5280 section 5.3.1."
)
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A certificate (PEM) to revoke: one alone, or one that the authority has no record of.",
)
@_authority_options
@json_option
def revoke(
    *,
    names: tuple[str, ...],
    reason: str,
    certificates: tuple[Path, ...],
    authority: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Revoke all certificates of NAMES (rm, client/alice) for good; services refuse them within seconds."""
    if not names and not certificates:
        raise UsageError("Say whom to revoke: names, or --certificate FILE.")
    opened = _open(authority, home)
    revoked = IdentityRevocation(authority=opened, home=home).revoke(
        names, x509.ReasonFlags(reason), certificates=certificates
    )
    if as_json:
        print_json([asdict(one) for one in revoked])
        return
    for one in revoked:
        say(f"{one.identity}: certificate {one.serial} is revoked")
    if not revoked:
        say("all of it was revoked before; the list was handed out again")
    say(
        f"the list is {opened.folder / IDENTITY_LIST}; copy it into the folder of every service on another host"
    )


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


@identities.command("renew")
@click.argument("names", nargs=-1)
@click.option(
    "--all", "everyone", is_flag=True, help="All that are not revoked, however long they are still valid."
)
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
    renewed = renewal.renew(tuple(renewal.in_force()) if everyone else names)
    if as_json:
        print_json([{"name": one.name, "not_after": one.not_after, "note": one.note} for one in renewed])
        return
    for one in renewed:
        say(f"{one.name}: valid until {_day(one.not_after)}{f'; {one.note}' if one.note else ''}")
    if not renewed:
        say("nothing is due")
