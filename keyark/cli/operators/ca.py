"""`keyark ca`: the issuing CA's place below a root."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from cryptography import x509

from keyark.cli.options import home_option, json_option, needs
from keyark.cli.output import KeyarkGroup, say_or_print
from keyark.cli.shape import rfc3339
from keyark.deployment.issuing_ca import IssuingCa, show_key_id
from keyark.keys.key_types import CA_KEY_TYPES
from keyark.x509.authority import describe_name
from keyark.x509.serials import serial_text


@click.group(cls=KeyarkGroup)
def ca() -> None:
    """Manage the CA that issues people's certificates, and the chain above it."""


@ca.command("show")
@home_option
@json_option
def show(home: Path, **options: Any) -> None:
    """Show the chain, from the issuing CA to the root."""
    chain = IssuingCa(home=home).chain()
    say_or_print(options, [_facts(one) for one in chain], [_line(one) for one in chain])


@ca.command("request")
@home_option
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file for the request (PEM).",
)
@json_option
@needs("server")
def request(home: Path, out: Path, **options: Any) -> None:
    """Write the issuing CA's certificate request, so that another root can sign it."""
    issuing = IssuingCa(home=home)
    asked = issuing.write_request(out)
    key_id = show_key_id(issuing.chain()[0])
    say_or_print(
        options,
        {"request": str(out), "subject": describe_name(asked.subject), "subject_key_identifier": key_id},
        [
            f"{out}: have {describe_name(asked.subject)} certified with CA:TRUE, keyCertSign and cRLSign,",
            f"subject key identifier {key_id}; the request asks for all of it",
        ],
    )


@ca.command("install")
@home_option
@click.argument("chain", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--fresh",
    is_flag=True,
    help="Accept another subject key identifier. The CM must confirm that it has issued nothing yet.",
)
@json_option
@needs("server")
def install(home: Path, chain: Path, *, fresh: bool, **options: Any) -> None:
    """Install a CHAIN (PEM, including the root) that another root signed. Services use it from their next start."""
    issuing = IssuingCa(home=home)
    installed = issuing.install(chain, now=int(time.time()), is_fresh=fresh)
    next_steps = _what_follows(issuing)
    facts = {"chain": [_facts(one) for one in installed], "next_steps": next_steps}
    say_or_print(options, facts, [*(_line(one) for one in installed), *next_steps])


@ca.command("rollover")
@home_option
@click.option("--name", required=True, help="The common name of the issuing CA with its new key.")
@click.option("--ca-key", default="ec-p256", show_default=True, help=" ".join(t.value for t in CA_KEY_TYPES))
@json_option
@needs("server")
def rollover(home: Path, *, name: str, ca_key: str, **options: Any) -> None:
    """Roll over the CA to a new key.

    The current key goes on signing CRLs and OCSP answers for the certificates that it issued. Services use the
    new key from their next start; start the DRM first. If the root is elsewhere, the command says what to have
    signed; run it again afterwards.
    """
    issuing = IssuingCa(home=home)
    made = issuing.roll_over(name, ca_key)
    if made.is_in_force:
        next_steps = _what_follows(issuing)
        lines = [f"{made.chain}: signs from the CM's next start on", *next_steps]
    else:
        next_steps = lines = [
            f"have {made.request} signed, put the chain (the CA's certificate first, the root last) in {made.chain},",
            "and run this command again; nothing else has changed so far",
        ]
    facts = {"is_in_force": made.is_in_force, "request": str(made.request), "chain": str(made.chain)}
    say_or_print(options, facts | {"next_steps": next_steps}, lines)


def _what_follows(issuing: IssuingCa) -> list[str]:
    if issuing.has_drm:
        last = f"restart the services, and give {issuing.public_chains} to everybody"
    else:
        last = "then restart the CM"
    return [*issuing.to_carry(), last]


def _facts(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": serial_text(certificate.serial_number),
        "not_after": rfc3339(certificate.not_valid_after_utc.timestamp()),
    }


def _line(certificate: x509.Certificate) -> str:
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"{certificate.subject.rfc4514_string()}, issued by {certificate.issuer.rfc4514_string()}, until {until}"
