"""`keyark home`: what people need to know of a deployment, from one public file that the internal CA signed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from keyark.cli.options import ADDRESSES, Decorator, confirm, home_option, json_option
from keyark.cli.output import KeyarkGroup, say_aside, say_or_print
from keyark.client.access.bundles import create_home, fetch, update_home
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import BundleSource, publish_bundle, sign_bundle
from keyark.errors.commands import UsageError
from keyark.identity.bundles import BUNDLE, Bundle


@click.group(cls=KeyarkGroup)
def home() -> None:
    """Make and update homes: folders with what a person or program must know of a deployment."""


@home.command("create")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL|FILE",
    help="The bundle of the deployment: deployment.toml.",
)
@click.option(
    "--fingerprint",
    metavar="HEX",
    help="The fingerprint of the internal CA (64 digits), as the operator told you. Without it, a "
    "terminal shows the fingerprint and asks.",
)
@json_option
def create(folder: Path, source: str, fingerprint: str | None, **options: Any) -> None:
    """Make a home in FOLDER, which must not exist or be empty."""
    bundle = Bundle.parse(fetch(source))
    if fingerprint is None:
        if not sys.stdin.isatty():
            raise UsageError("Give the internal CA's --fingerprint, as the operator told you.")
        fingerprint = bundle.fingerprints[0]
        say_aside(f"The internal CA of {bundle.content.trust_domain} has the fingerprint {fingerprint}")
        confirm("Is that what the operator told you?")
    create_home(folder, bundle, believed=fingerprint.lower())
    say_or_print(
        options,
        {"folder": str(folder), "trust_domain": bundle.content.trust_domain, "bundle": bundle.content.number},
        [
            f"made a home of {bundle.content.trust_domain} in {folder}",
            f"next, request an identity: keyark identities request ROLE/NAME --home {folder}",
            "where ROLE is client, agent, officer or auditor",
        ],
    )


@home.command("update")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL|FILE",
    help="The newest deployment.toml of the deployment.",
)
@home_option
@json_option
def update(source: str, home: Path, **options: Any) -> None:
    """Update a home with what changed: addresses, CAs, log keys, transport keys, revoked identities."""
    bundle = Bundle.parse(fetch(source))
    update_home(home, bundle)
    facts = {"folder": str(home), "bundle": bundle.content.number}
    say_or_print(options, facts, [f"{home} is up to date with bundle {bundle.content.number}"])


def _address_option(role: str) -> Decorator:
    return click.option(
        f"--{role}", type=ADDRESSES, metavar="HOST:PORT", help=f"The address of the {role.upper()}."
    )


def _file_option(name: str, parameter: str, text: str) -> Decorator:
    return click.option(f"--{name}", parameter, type=click.Path(dir_okay=False, path_type=Path), help=text)


@home.command("bundle")
@click.option(
    "--home",
    envvar="KEYARK_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    help="A home that provides whatever no other option gives.",
)
@click.option(
    "--authority",
    type=click.Path(file_okay=False, path_type=Path),
    help="The authority's folder. Default: HOME/authority.",
)
@_address_option("rm")
@_address_option("cm")
@_address_option("drm")
@_file_option("ca", "ca", "The issuing CA's chain, the root last: ca.pem of the CM.")
@_file_option("transport", "transport", "The DRM's transport certificates, the newest first.")
@_file_option("rm-log", "rm_log_key", "The RM's log.pub.pem.")
@_file_option("cm-log", "cm_log_key", "The CM's log.pub.pem.")
@_file_option("out", "out", "The file for the bundle. Default: HOME/deployment.toml.")
@json_option
def bundle(
    *, home: Path | None, authority: Path | None, out: Path | None, as_json: Any, **parts: Any
) -> None:
    """Write and sign the bundle from which people make their homes.

    Needs the internal CA's key. The parts come from a home, or from the services' own files.
    """
    if home is None and (authority is None or out is None):
        raise UsageError("Name a home with --home, or --authority and --out.")
    signer = DeploymentAuthority.load(authority or Path(home or "") / "authority")
    target = out or Path(home or "") / BUNDLE
    source = _source(home, signer, parts)
    made = (
        publish_bundle(home, source, signer) if home and out is None else sign_bundle(source, signer, target)
    )
    say_or_print(
        {"as_json": as_json},
        {"file": str(target), "bundle": made.content.number, "fingerprint": made.fingerprints[0]},
        [
            f"{target}: bundle {made.content.number}; it is public, so distribute it in any way",
            f"fingerprint, to tell people over another channel: {made.fingerprints[0]}",
        ],
    )


def _source(home: Path | None, signer: DeploymentAuthority, parts: dict[str, Any]) -> BundleSource:
    given = {name: value for name, value in parts.items() if value is not None}
    if home is not None:
        return replace(BundleSource.of_home(home), **given)
    missing = [name.removesuffix("_key").replace("_", "-") for name in parts if name not in given]
    if missing:
        raise UsageError(f"Without --home, give {', '.join(f'--{name}' for name in missing)} too.")
    return BundleSource(**given, trust_anchor=signer.folder / "internal-ca.pem")
