"""`keyark ca`: the issuing CA's place below a root."""

from __future__ import annotations

import time
from pathlib import Path

import click
from cryptography import x509

from keyark.cli.options import home_option, needs
from keyark.cli.output import KeyarkGroup, say
from keyark.deployment.issuing_ca import IssuingCa, show_key_id
from keyark.keys.key_types import CA_KEY_TYPES
from keyark.x509.authority import describe_name


@click.group(cls=KeyarkGroup)
def ca() -> None:
    """The CA that issues people's certificates, and what is above it."""


@ca.command("show")
@home_option
def show(home: Path) -> None:
    """Show the chain, from the issuing CA to the root."""
    for certificate in IssuingCa(home=home).chain():
        say(_line(certificate))


@ca.command("request")
@home_option
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Where it goes, PEM."
)
@needs("server")
def request(home: Path, out: Path) -> None:
    """Write the issuing CA's certificate request, for another root to sign."""
    issuing = IssuingCa(home=home)
    asked = issuing.write_request(out)
    say(f"{out}: have {describe_name(asked.subject)} certified with CA:TRUE, keyCertSign and cRLSign,")
    say(f"subject key identifier {show_key_id(issuing.chain()[0])}; the request asks for all of it")


@ca.command("install")
@home_option
@click.argument("chain", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--fresh",
    is_flag=True,
    help="Nothing was issued yet, as the CM confirms; another subject key identifier may come.",
)
@needs("server")
def install(home: Path, chain: Path, *, fresh: bool) -> None:
    """Put the CHAIN (PEM, with the root) that another root signed in force; services take it at their next start."""
    issuing = IssuingCa(home=home)
    for certificate in issuing.install(chain, now=int(time.time()), is_fresh=fresh):
        say(_line(certificate))
    _say_what_follows(issuing)


@ca.command("rollover")
@home_option
@click.option("--name", required=True, help="Common name of the issuing CA with its new key.")
@click.option("--ca-key", default="ec-p256", show_default=True, help=" ".join(t.value for t in CA_KEY_TYPES))
@needs("server")
def rollover(home: Path, *, name: str, ca_key: str) -> None:
    """Give the CA another key; the present one goes on signing CRLs and OCSP of what it signed.

    Services take it at their next start, the DRM first. Where the root is elsewhere, the command says what to have
    signed, and goes on when it is given again.
    """
    issuing = IssuingCa(home=home)
    made = issuing.roll_over(name, ca_key)
    if not made.is_in_force:
        say(
            f"have {made.request} signed, put the chain (the CA's certificate first, the root last) in {made.chain},"
        )
        say("and repeat this; nothing else has changed so far")
        return
    say(f"{made.chain}: signs from the CM's next start on")
    _say_what_follows(issuing)


def _say_what_follows(issuing: IssuingCa) -> None:
    for line in issuing.to_carry():
        say(line)
    if issuing.has_drm:
        say(f"restart the services, and give everybody {issuing.public_chains}")
    else:
        say("then restart the CM")


def _line(certificate: x509.Certificate) -> str:
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"{certificate.subject.rfc4514_string()}, issued by {certificate.issuer.rfc4514_string()}, until {until}"
