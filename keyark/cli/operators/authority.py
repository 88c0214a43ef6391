"""`keyark authority`: the internal CA and the root, on a machine of their own or below HOME/authority."""

from __future__ import annotations

from pathlib import Path

import click

from keyark.cli.operators.key_password import authority_password as chosen_password
from keyark.cli.operators.key_password import authority_password_option
from keyark.cli.options import F
from keyark.cli.output import KeyarkGroup, UsageError, say
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.internal_ca import InternalCaRenewal
from keyark.keys.key_types import CA_KEY_TYPES, KeyType, parse_key_type


def _authority_options(function: F) -> F:
    """--authority DIR, or --home DIR, or KEYARK_HOME."""
    named = click.option(
        "--authority", type=click.Path(file_okay=False, path_type=Path), help="The authority's folder."
    )
    below = click.option(
        "--home",
        envvar="KEYARK_HOME",
        type=click.Path(file_okay=False, path_type=Path),
        help="Instead: the deployment's folder, with the authority in authority/.",
    )
    return named(below(function))


def _out_option(function: F) -> F:
    """--out FILE."""
    return click.option(
        "--out",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where the certificate goes, PEM; an older one is replaced.",
    )(function)


def _open(authority: Path | None, home: Path | None) -> DeploymentAuthority:
    if authority is None and home is None:
        raise UsageError(
            "Name the authority with --authority DIR, or the deployment that it lies in with --home DIR."
        )
    return DeploymentAuthority.load(authority or Path(home or "") / "authority")


@click.group(cls=KeyarkGroup)
def authority() -> None:
    """The internal CA and the root; `keyark identities` says whom the internal CA lets in."""


@authority.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--trust-domain", required=True)
@click.option("--ca-key", default=KeyType.EC_P256.value, show_default=True, help="Key type of the root.")
@authority_password_option
def init(folder: Path, trust_domain: str, ca_key: str, authority_password: str) -> None:
    """Make the internal CA and the root in FOLDER, which must not exist or be empty."""
    key_type = parse_key_type(ca_key, permitted=CA_KEY_TYPES, field="--ca-key")
    password = chosen_password(authority_password, folder)
    DeploymentAuthority.create(
        folder, trust_domain=trust_domain, root_key_type=key_type, key_password=password
    )
    say(f"made the internal CA and the root of {trust_domain} in {folder}")


@authority.command("renew")
@_authority_options
def renew(*, authority: Path | None, home: Path | None) -> None:
    """Give the internal CA a certificate that ends later; its key and name stay, and what it signed stays good.

    It works also when it has ended and everything is stopped. With --home the deployment there gets it too.
    """
    renewed = InternalCaRenewal(authority=_open(authority, home), home=home).renew()
    say(f"the internal CA is valid until {renewed.until:%Y-%m-%d}; its key and name stay")
    for path in renewed.files:
        say(f"{path}: has it")
    say(
        f"copy {renewed.source} over the trust anchor (trust-anchor.pem) of every service and home on other hosts, "
        "and restart services that run"
    )
    if renewed.list_file is not None:
        say(f"copy {renewed.list_file} there too")
    if home is not None:
        say(
            f"then renew what ended with it or would: `keyark identities renew --all --home {home}` and `keyark "
            f"transport-key renew --home {home}`"
        )


@authority.command("sign-ca")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="Common name that the request has to ask for.")
@_authority_options
@_out_option
def sign_ca(request: Path, name: str, authority: Path | None, home: Path | None, out: Path) -> None:
    """Issue the certificate of the issuing CA, followed by the root's; the root's key is needed for nothing else."""
    _open(authority, home).sign_issuing_ca(request, name, out)
    say(f"{out}: certificate of {name}, then the root")
