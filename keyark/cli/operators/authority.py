"""`keyark authority`: the internal CA and the root, on a machine of their own or below HOME/authority."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from keyark.cli.operators.key_password import authority_password as chosen_password
from keyark.cli.operators.key_password import authority_password_option
from keyark.cli.options import ADDRESSES, F, confirm, json_option
from keyark.cli.output import KeyarkGroup, say_aside, say_or_print
from keyark.cli.shape import rfc3339
from keyark.deployment.access.answering import Asked, answer, bundle_of
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.internal_ca import InternalCaRenewal
from keyark.errors.commands import UsageError
from keyark.identity.bundles import BUNDLE
from keyark.identity.certificates import fingerprint
from keyark.identity.spiffe import SERVICE_ROLES
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
        help="The deployment's folder, whose subfolder authority is used.",
    )
    return named(below(function))


def _out_option(function: F) -> F:
    """--out FILE."""
    return click.option(
        "--out",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="The file for the certificate (PEM). An existing one is replaced.",
    )(function)


def _open(authority: Path | None, home: Path | None) -> DeploymentAuthority:
    if authority is None and home is None:
        raise UsageError(
            "Name the authority with --authority DIR, or the deployment that contains it with --home DIR."
        )
    return DeploymentAuthority.load(authority or Path(home or "") / "authority")


@click.group(cls=KeyarkGroup)
def authority() -> None:
    """Keep the internal CA and the root. `keyark identities` manages what the internal CA certifies."""


@authority.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--trust-domain", required=True)
@click.option("--ca-key", default=KeyType.EC_P256.value, show_default=True, help="The key type of the root.")
@authority_password_option
@json_option
def init(folder: Path, trust_domain: str, ca_key: str, authority_password: str, **options: Any) -> None:
    """Make the internal CA and the root in FOLDER, which must not exist or be empty."""
    key_type = parse_key_type(ca_key, permitted=CA_KEY_TYPES, field="--ca-key")
    password = chosen_password(authority_password, folder)
    made = DeploymentAuthority.create(
        folder, trust_domain=trust_domain, root_key_type=key_type, key_password=password
    )
    shown = fingerprint(made.internal.certificate)
    say_or_print(
        options,
        {"folder": str(folder), "trust_domain": trust_domain, "fingerprint": shown},
        [
            f"made the internal CA and the root of {trust_domain} in {folder}",
            f"fingerprint, to tell people over another channel: {shown}",
        ],
    )


@authority.command("renew")
@_authority_options
@json_option
def renew(*, authority: Path | None, home: Path | None, **options: Any) -> None:
    """Give the internal CA a certificate that ends later.

    Key and name stay the same, and everything that it signed stays valid. The command also works after the
    certificate has ended and with all services stopped. With --home, it updates the deployment in that folder
    too.
    """
    renewed = InternalCaRenewal(authority=_open(authority, home), home=home).renew()
    next_steps = [
        f"copy {renewed.source} over the trust anchor (trust-anchor.pem) of every service and home on "
        "other hosts, and restart running services"
    ]
    if renewed.list_file is not None:
        next_steps.append(f"copy {renewed.list_file} there too")
    if home is not None:
        next_steps.append(
            f"then renew everything that ended with it: `keyark identities renew --all --home {home}` and "
            f"`keyark transport-key renew --home {home}`"
        )
    files, until = [str(path) for path in renewed.files], rfc3339(renewed.until.timestamp())
    say_or_print(
        options,
        {"not_after": until, "files": files, "next_steps": next_steps},
        [
            f"the internal CA is valid until {renewed.until:%Y-%m-%d}; its key and name stay",
            *(f"{path}: has it" for path in files),
            *next_steps,
        ],
    )


@authority.command("sign-ca")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="The common name that the request must contain.")
@_authority_options
@_out_option
@json_option
def sign_ca(
    request: Path, name: str, authority: Path | None, home: Path | None, out: Path, **options: Any
) -> None:
    """Issue the certificate of the issuing CA, with the root's key, and append the root's certificate."""
    _open(authority, home).sign_issuing_ca(request, name, out)
    say_or_print(
        options, {"certificate": str(out), "name": name}, [f"{out}: certificate of {name}, then the root"]
    )


@authority.command("answer")
@click.argument("requests", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option(
    "--fingerprint",
    "fingerprints",
    multiple=True,
    metavar="HEX",
    help="The fingerprint that the maker of a request saw. Repeat it for each request. Without it, a "
    "terminal shows the fingerprints and asks.",
)
@click.option(
    "--ca-name",
    help="The common name that the CM's request must contain. Default: Issuing CA of TRUST-DOMAIN.",
)
@click.option(
    "--rm",
    type=ADDRESSES,
    metavar="HOST:PORT",
    help="The address at which people reach the RM, for the bundle.",
)
@click.option(
    "--cm",
    type=ADDRESSES,
    metavar="HOST:PORT",
    help="The address at which people reach the CM, for the bundle.",
)
@click.option(
    "--drm",
    type=ADDRESSES,
    metavar="HOST:PORT",
    help="The address at which people reach the DRM, for the bundle.",
)
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    default=BUNDLE,
    show_default=True,
    help="The file for the bundle, which is written if all three services are answered.",
)
@_authority_options
@_out_option
@json_option
def answer_requests(
    *,
    requests: tuple[str, ...],
    fingerprints: tuple[str, ...],
    ca_name: str | None,
    bundle: Path,
    authority: Path | None,
    home: Path | None,
    out: Path,
    as_json: Any,
    **addresses: str | None,
) -> None:
    """Answer many requests in one file, which services and people then install.

    NAME is who must have made the request (rm, cm, drm, agent/alice). FILE is the request.json of a service or
    the identity.csr of a person. If RM, CM and DRM are all answered, the command also writes the bundle for
    people's homes.
    """
    named = [one.partition("=") for one in requests]
    if any(not name or not path for name, _, path in named) or len({name for name, _, _ in named}) != len(
        named
    ):
        raise UsageError("Name each request once, as NAME=FILE: agent/alice=alice/identity.csr.")
    asked = Asked.read({name: Path(path) for name, _, path in named})
    known = {role: address for role, address in addresses.items() if address is not None}
    if asked.whole and len(known) != len(SERVICE_ROLES):
        raise UsageError("Give the addresses at which people reach the services: --rm, --cm and --drm.")
    signer = _open(authority, home)
    _compare(asked, fingerprints)
    name = ca_name or f"Issuing CA of {signer.trust_domain}"[:64]
    issued = answer(asked, signer, ca_name=name, out=out)
    facts: dict[str, Any] = {"file": str(out), "answered": list(asked.files)}
    lines = [f"{out}: answers {', '.join(asked.files)}; give it to each of them, it is public"]
    if asked.whole:
        made = bundle_of(asked, issued, signer, addresses=known, out=bundle)
        facts |= {"bundle": str(bundle), "number": made.content.number, "fingerprint": made.fingerprints[0]}
        lines += [
            f"{bundle}: bundle {made.content.number}, for `keyark home create`",
            f"fingerprint, to tell people over another channel: {made.fingerprints[0]}",
        ]
    say_or_print({"as_json": as_json}, facts, lines)


def _compare(asked: Asked, told: tuple[str, ...]) -> None:
    """Hold the requests against what their makers told; raises UsageError where nobody can compare."""
    if told:
        asked.check([one.lower() for one in told])
        return
    if not sys.stdin.isatty():
        raise UsageError("Give the --fingerprint of each request, as its maker saw it.")
    for name, one in asked.fingerprints.items():
        say_aside(f"{name}  {one}")
    confirm("Are these the fingerprints that the makers of the requests told you?")
