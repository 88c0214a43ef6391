"""`keyark identities`: who has access: what the internal CA issued to services and people, renewed or revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from keyark.cli.listing import part_of, print_part
from keyark.cli.officers.certificates import days
from keyark.cli.officers.revocation import FINAL_REASONS
from keyark.cli.options import (
    F,
    home_option,
    json_option,
    new_identity_password,
    paging_options,
    password_file_option,
    password_source,
)
from keyark.cli.output import KeyarkGroup, print_json, say, say_aside, say_or_print
from keyark.cli.shape import with_times
from keyark.client.access.home import Home
from keyark.client.administration.paging import Paging
from keyark.clock import SECONDS_PER_DAY
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.access.inventory import IN_FORCE, STATES, Inventory, InventoryEntry
from keyark.deployment.access.own_identity import OwnIdentity, anchors_of
from keyark.deployment.access.revocation import IdentityRevocation
from keyark.errors import ConfigurationError
from keyark.errors.commands import UsageError
from keyark.identity.certificates import fingerprint as fingerprint_of
from keyark.identity.certificates import identity_of
from keyark.identity.revoked import IDENTITY_LIST
from keyark.identity.spiffe import SERVICE_ROLES, TRANSPORT_ROLE, SpiffeId
from keyark.x509.certificates import load_certificates


@click.group(cls=KeyarkGroup)
def identities() -> None:
    """Manage who has access to a deployment: its services and people."""


def _authority_options(function: F) -> F:
    """--authority DIR, and --home DIR for what lies on the same machine."""
    authority = click.option(
        "--authority",
        type=click.Path(file_okay=False, path_type=Path),
        help="The authority's folder. Default: HOME/authority.",
    )
    return authority(_home_option(function))


def _home_option(function: F) -> F:
    """--home DIR, which may be missing."""
    return click.option(
        "--home",
        envvar="KEYARK_HOME",
        type=click.Path(file_okay=False, path_type=Path),
        help="The deployment's folder, if it is on this machine.",
    )(function)


def _open(authority: Path | None, home: Path | None) -> DeploymentAuthority:
    if authority is None and home is None:
        raise UsageError("Name the authority's folder with --authority, or the deployment's with --home.")
    return DeploymentAuthority.load(authority or Path(home or "") / "authority")


@identities.command("list")
@click.option(
    "--role", help="List only this role: client, officer, agent, auditor, rm, cm, drm or drm/transport."
)
@click.option("--state", type=click.Choice(STATES), help="List only certificates in this state.")
@_authority_options
@paging_options
@json_option
def list_(
    *, role: str | None, state: str | None, authority: Path | None, home: Path | None, **options: Any
) -> None:
    """List the certificates that the internal CA issued to services and people, with their state."""
    rows = [
        one
        for one in Inventory(_open(authority, home)).entries()
        if state in (None, one.state)
        and role in (None, one.issued.identity, one.issued.identity.partition("/")[0])
    ]
    paging = Paging(token=options["page_token"], limit=options["limit"])
    part = part_of(rows, paging, token=lambda one: one.issued.serial)
    print_part(
        options,
        [with_times(one.as_json()) for one in part],
        paging,
        lines=[f"{one.issued.identity:<24} {one.issued.serial:<40} {_state(one)}" for one in part],
    )


@identities.command("show")
@click.argument("what", metavar="NAME|SERIAL")
@_authority_options
@json_option
def show(*, what: str, authority: Path | None, home: Path | None, as_json: bool) -> None:
    """Show all certificates of NAME (client/alice), or the one with a SERIAL number (hexadecimal)."""
    found = Inventory(_open(authority, home)).find(what)
    if as_json:
        print_json([with_times(one.as_json()) for one in found])
        return
    for one in found:
        issued = one.issued
        say(f"{issued.identity}  {_state(one)}")
        say(f"  serial number  {issued.serial}")
        say(f"  key (SHA-256)  {issued.spki_sha256}")
        say(f"  valid          {_day(issued.not_before)} to {_day(issued.not_after)}")


def _state(one: InventoryEntry) -> str:
    if one.revoked_at is not None:
        return f"revoked on {_day(one.revoked_at)}: {one.reason}"
    return f"{one.state}, until {_day(one.issued.not_after)}" if one.state == IN_FORCE else one.state


@identities.command("request")
@click.argument("name")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the identity. Default: its place in the home.",
)
@click.option("--trust-domain", help="The trust domain of the deployment. Default: that of the home.")
@_home_option
@password_file_option("The file with the password that encrypts the key. Without it, a terminal asks.")
@json_option
def request(
    *,
    name: str,
    folder: Path | None,
    trust_domain: str | None,
    home: Path | None,
    password_file: Path | None,
    **options: Any,
) -> None:
    """Make a key and a certificate request for NAME (client/alice, agent/carol, rm), on the owner's machine.

    The key stays on that machine. If NAME has a certificate already, the new key waits beside the current one.
    If a request got lost, run the command again: it uses the same key.
    """
    if trust_domain is None:
        if home is None:
            raise UsageError(
                "Name the trust domain with --trust-domain, or a home that knows it with --home."
            )
        trust_domain = Home.load(home).config.trust_domain
    identity = SpiffeId(trust_domain, name)
    own = OwnIdentity(folder or _place(home, identity))
    made = own.request(identity, passwords=_Passwords(password_file))
    say_or_print(
        options,
        {"identity": name, "folder": str(own.folder), "request": str(made), "fingerprint": own.fingerprint},
        [
            f"{made}: have it issued: keyark identities issue {name} {made.name} --authority DIR --out cert.pem",
            f"then: keyark identities install cert.pem --in {own.folder}",
            f"fingerprint of the request, to tell the authority over another channel: {own.fingerprint}",
        ],
    )


@identities.command("issue")
@click.argument("name")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file for the certificate (PEM). An existing one is replaced.",
)
@_authority_options
@json_option
def issue(
    *, name: str, request: Path, out: Path, authority: Path | None, home: Path | None, **options: Any
) -> None:
    """Issue the certificate for REQUEST, which must ask for NAME and nothing else.

    NAME is rm, cm, drm or drm/transport, or client/NAME, officer/NAME, agent/NAME or auditor/NAME.
    """
    signer = _open(authority, home)
    expected = SpiffeId(signer.trust_domain, name)
    signer.sign_identity(request, expected, out)
    others = 0
    if expected.role != TRANSPORT_ROLE:
        others = sum(one.state == IN_FORCE for one in Inventory(signer).find(name)) - 1
    lines = [f"{out}: certificate of {expected}"]
    if others:
        lines.append(
            f"note: {name} has {others} more certificates in force; see keyark identities show {name}"
        )
    say_or_print(options, {"identity": name, "certificate": str(out), "others_in_force": others}, lines)


@identities.command("install")
@click.argument("certificate", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--in",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the request. Default: its place in the home.",
)
@_home_option
@click.option(
    "--fingerprint",
    metavar="HEX",
    help="The internal CA's, 64 digits, as the operator tells it; shown to be compared otherwise.",
)
@password_file_option("The file with the password of the key. Without it, a terminal asks.")
@json_option
def install(
    *,
    certificate: Path,
    folder: Path | None,
    home: Path | None,
    fingerprint: str | None,
    password_file: Path | None,
    **options: Any,
) -> None:
    """Install a CERTIFICATE that was issued for a request. An agent gets a share key too.

    CERTIFICATE is a PEM file, or with --in the file that `keyark authority answer` wrote. A running service
    uses the certificate within 30 seconds.
    """
    place = folder or _place(home, identity_of(load_certificates(certificate)[0]))
    own = OwnIdentity(place)
    identity = own.identity
    anchors = _believed(certificate, _anchors(home, place), fingerprint)
    made = own.install(certificate, anchors=anchors, passwords=_Passwords(password_file))
    say_or_print(
        options,
        {"identity": identity.path, "folder": str(place), "share_keys": [str(path) for path in made]},
        [
            f"{place}: {identity} is in force",
            *(f"{path}: for `keyark agents rotate` or the DRM's init" for path in made),
        ],
    )


def _place(home: Path | None, identity: SpiffeId) -> Path:
    if home is None:
        raise UsageError("Name the folder of the identity, or a home with --home.")
    return home / identity.role if identity.role in SERVICE_ROLES else home / "identities" / identity.path


def _anchors(home: Path | None, place: Path) -> Sequence[x509.Certificate]:
    """The internal CAs that this machine knows."""
    path = place / "trust-anchor.pem" if home is None else Home.load(home).config.trust_anchor
    return load_certificates(path) if path.exists() else ()


def _believed(
    certificate: Path, known: Sequence[x509.Certificate], told: str | None
) -> Sequence[x509.Certificate]:
    """The internal CAs that the certificate has to be from: those known here, or the one that an answer names."""
    anchors = known or anchors_of(certificate)
    found = [fingerprint_of(anchor) for anchor in anchors]
    if told is not None and not anchors:
        raise UsageError(
            "A certificate alone does not name its internal CA, so there is no fingerprint to compare; name the "
            "--home, or have the request answered with `keyark authority answer`."
        )
    if told is not None and told.lower() not in found:
        raise ConfigurationError(
            f"The internal CA has the fingerprint {found[0]}, which is not the expected one; ask the authority's "
            "operator for both."
        )
    if anchors and not known and told is None:
        say_aside(
            f"from the internal CA with the fingerprint {found[0]}: is it what the authority's operator told you?"
        )
    return anchors


@dataclass(frozen=True)
class _Passwords:
    file: Path | None

    def new(self) -> bytes | None:
        return new_identity_password(self.file, "Password for the key")

    def present(self) -> bytes:
        return password_source(self.file)(Path("the key")) or b""


@identities.command("revoke")
@click.argument("names", nargs=-1)
@click.option(
    "--reason",
    required=True,
    type=click.Choice(FINAL_REASONS),
    help="The reason, as in RFC 5280 section 5.3.1.",
)
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The certificate (PEM) to revoke, if it is only one of several or the authority has no "
    "record of it.",
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
    """Revoke all certificates of NAMES (rm, client/alice) permanently. Services refuse them within seconds."""
    if not names and not certificates:
        raise UsageError("Name whom to revoke, or give --certificate FILE.")
    opened = _open(authority, home)
    revoked = IdentityRevocation(authority=opened, home=home).revoke(
        names, x509.ReasonFlags(reason), certificates=certificates
    )
    if as_json:
        print_json([with_times(asdict(one)) for one in revoked])
        return
    for one in revoked:
        say(f"{one.identity}: certificate {one.serial} is revoked")
    if not revoked:
        say("everything was already revoked; the list was distributed again")
    say(f"copy the list {opened.folder / IDENTITY_LIST} into the folder of every service on another host")


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


@identities.command("renew")
@click.argument("names", nargs=-1)
@click.option(
    "--all",
    "everyone",
    is_flag=True,
    help="Renew all identities that are not revoked, however long they are still valid.",
)
@click.option("--within", help="Renew those that end within this time: days (30d) or weeks (4w).")
@click.option(
    "--authority",
    type=click.Path(file_okay=False, path_type=Path),
    help="The authority's folder. Default: HOME/authority.",
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
    """Make new keys and certificates for NAMES (rm, client/alice). Running services use them at once."""
    if (bool(names), everyone, within is not None).count(True) != 1:
        raise UsageError("Name whom to renew, or give --all or --within 30d.")
    renewal = IdentityRenewal(home=home, authority=DeploymentAuthority.load(authority or home / "authority"))
    if within is not None:
        names = tuple(renewal.due(days(within) * SECONDS_PER_DAY))
    renewed = renewal.renew(tuple(renewal.in_force()) if everyone else names)
    if as_json:
        print_json([with_times(asdict(one)) for one in renewed])
        return
    for one in renewed:
        say(f"{one.name}: valid until {_day(one.not_after)}{f'; {one.note}' if one.note else ''}")
    if not renewed:
        say("nothing is due")
