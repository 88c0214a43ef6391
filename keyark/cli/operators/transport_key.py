"""`keyark transport-key`: the keys that clients wrap to, and that sign the DRM's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keyark.cli.options import home_option, json_option, needs
from keyark.cli.output import KeyarkGroup, print_json, say, say_aside
from keyark.deployment.transport import TransportKeyRotation
from keyark.keys.key_types import TRANSPORT_KEY_TYPES, KeyType, parse_key_type


@click.group("transport-key", cls=KeyarkGroup)
def transport_key() -> None:
    """Show, rotate, renew and retire the DRM's transport keys."""


@transport_key.command("list")
@home_option
@json_option
@needs("server")
def list_(home: Path, *, as_json: bool) -> None:
    """List all transport keys, newest first.

    OFFERED: clients encrypt to it, and it signs the log. TAKEN: the DRM still accepts what was encrypted to it.
    RETIRED: its private key is deleted.
    """
    _show(TransportKeyRotation(home=home).keys(), as_json=as_json)


@transport_key.command()
@click.option(
    "--key-type",
    default=KeyType.EC_P256.value,
    show_default=True,
    help=" ".join(t.value for t in TRANSPORT_KEY_TYPES),
)
@home_option
@json_option
@needs("server")
def rotate(home: Path, key_type: str, *, as_json: bool) -> None:
    """Make a new transport key and offer it to clients.

    The DRM accepts envelopes to older keys until you retire them. If the command is interrupted, run it again.
    """
    permitted = parse_key_type(key_type, permitted=TRANSPORT_KEY_TYPES, field="--key-type")
    _show(TransportKeyRotation(home=home).rotate(permitted), as_json=as_json)


@transport_key.command()
@home_option
@json_option
@needs("server")
def renew(home: Path, *, as_json: bool) -> None:
    """Give the newest transport key a new certificate.

    This also works while the deployment is stopped and after the certificate has ended. If nothing is wrong,
    `rotate` is better: it makes a stolen copy of the current key useless.
    """
    done = TransportKeyRotation(home=home).renew()
    if as_json:
        print_json([{"done": line} for line in done])
        return
    for line in done:
        say(line)


@transport_key.command()
@click.argument("generation")
@home_option
@json_option
@needs("server")
def retire(home: Path, generation: str, *, as_json: bool) -> None:
    """Refuse envelopes to transport key GENERATION (its number in the list) from now on, and delete its private
    key.
    """
    key = TransportKeyRotation(home=home).retire(generation)
    if as_json:
        print_json(key)
        return
    say(_line(key))
    say_aside(
        f"warning: the private key of transport key {generation} is deleted here; destroy its copies "
        "in backups of the DRM's folder too, since they still open what was wrapped to it",
    )


def _show(keys: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(keys)
        return
    for key in keys:
        say(_line(key))


def _line(key: dict[str, Any]) -> str:
    return f"{key['generation']}  {key['state']:8} {key['key_id']}"
