"""`keyark certificates`: find, show and export certificates, as registration officers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from keyark.cli.listing import hexadecimal, print_all, print_one, session_of, when
from keyark.cli.options import (
    paging_options,
    person_options,
)
from keyark.cli.output import KeyarkGroup, print_json, say
from keyark.client.access.sessions import Session
from keyark.client.administration import lists as administration
from keyark.client.administration.abbreviations import whole_serial
from keyark.errors import NotFoundError
from keyark.errors.commands import UsageError
from keyark.files import write_file
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, CertificateState, KeyRole
from keyark.x509.certificates import encode_pem_certificates, load_certificate

F = TypeVar("F", bound=Callable[..., Any])

STATES: Final = tuple(
    name.removeprefix("CERTIFICATE_STATE_").lower().replace("_", "-")
    for name, number in CertificateState.items()
    if number
)
DAY: Final = click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])


officer_options = person_options("officer/officer")
"""The options of every command that an officer gives to the CM."""


def filter_options(function: F) -> F:
    """The options that say which certificates are meant."""
    for option in reversed(
        (
            click.option("--name", help="The whole common name, in any case."),
            click.option("--email", help="The whole e-mail address, in any case."),
            click.option("--serial", help="The serial number, hexadecimal."),
            click.option(
                "--key", help="The key id: SHA-256 of the SubjectPublicKeyInfo, 64 hexadecimal digits."
            ),
            click.option("--state", type=click.Choice(STATES)),
            click.option("--profile"),
            click.option("--expires-from", type=DAY, help="Expires at this time (UTC) or later."),
            click.option("--expires-until", type=DAY, help="Expires at this time (UTC) or before."),
            click.option(
                "--expires-within",
                type=click.IntRange(1),
                help="In force and expires within this many days, including the whole last day.",
            ),
        )
    ):
        function = option(function)
    return function


def pop_filter(options: dict[str, Any]) -> CertificateFilter:
    """Take the filter out of a command's options; raises UsageError."""
    state, within = options.pop("state"), options.pop("expires_within")
    earliest, latest = options.pop("expires_from"), options.pop("expires_until")
    if within is not None:
        if state or earliest or latest:
            raise UsageError(
                "--expires-within already means certificates in force; do not combine it with --state "
                "or other times."
            )
        state, latest = "valid", _end_of_day(within)
    serial, key = options.pop("serial"), options.pop("key")
    name = f"CERTIFICATE_STATE_{(state or 'unspecified').upper().replace('-', '_')}"
    return CertificateFilter(
        common_name=options.pop("name"),
        email=options.pop("email"),
        profile=options.pop("profile"),
        serial=hexadecimal(serial) if serial else None,
        spki_sha256=hexadecimal(key) if key else None,
        state=CertificateState.Value(name),
        expires_from=_seconds(earliest),
        expires_until=_seconds(latest),
    )


def _end_of_day(days_ahead: int) -> datetime:
    """Return the last second of the day (UTC) in so many days: page tokens of such a list fit for a day."""
    return (datetime.now(UTC) + timedelta(days=days_ahead)).replace(
        hour=23, minute=59, second=59, microsecond=0
    )


def _seconds(moment: datetime | None) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp()) if moment else 0


@click.group(cls=KeyarkGroup)
def certificates() -> None:
    """Find, export, revoke and suspend certificates."""


@certificates.command("list")
@filter_options
@paging_options
@officer_options
def list_certificates(**options: Any) -> None:
    """List the certificates that match all given options."""
    wanted = pop_filter(options)
    print_all(
        options, "cm", lambda s, part: administration.list_certificates(s, wanted, part), certificate_line
    )


@certificates.command("show")
@click.argument("serial")
@officer_options
def show_certificate(serial: str, **options: Any) -> None:
    """Show a certificate. SERIAL may be abbreviated."""

    async def fetch(session: Session) -> Certificate:
        return await administration.get_certificate(session, await whole_serial(session, serial))

    print_one(options, "cm", fetch, certificate_line)


@certificates.command("expiring")
@click.option("--within", required=True, help="Days (30d) or weeks (4w), including the whole last day.")
@paging_options
@officer_options
def list_expiring(*, within: str, **options: Any) -> None:
    """List the certificates in force that expire soon; those that expire first come first."""
    latest = _seconds(_end_of_day(days(within)))
    wanted = CertificateFilter(state=CertificateState.CERTIFICATE_STATE_VALID, expires_until=latest)
    print_all(
        options, "cm", lambda s, part: administration.list_certificates(s, wanted, part), certificate_line
    )


def days(text: str) -> int:
    """Return how many days "30d" or "4w" are; raises UsageError."""
    unit = {"d": 1, "w": 7}.get(text[-1:])
    number = text[:-1]
    if unit is None or not number.isdecimal() or not 0 < int(number) * unit <= 36_500:
        raise UsageError(f"{text!r} is not a time; write 30d or 4w.")
    return int(number) * unit


@certificates.command("export")
@filter_options
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)
@click.option("--der", is_flag=True, help="Write DER instead of PEM; exactly one certificate must match.")
@officer_options
def export_certificates(*, out: Path, der: bool, **options: Any) -> None:
    """Write the certificates that match all given options to a file."""
    wanted = pop_filter(options)

    async def run() -> list[bytes]:
        async with session_of(options, "cm") as session:
            return [c.certificate async for c in administration.list_certificates(session, wanted)]

    found = asyncio.run(run())
    if not found:
        raise NotFoundError("No certificate matches; `keyark certificates list` lists them.")
    if der and len(found) > 1:
        raise UsageError(
            f"{len(found)} certificates match, but DER holds only one; narrow the filter or write PEM."
        )
    write_file(
        out, found[0] if der else encode_pem_certificates([load_certificate(c) for c in found]), mode=0o644
    )
    if options["as_json"]:
        print_json({"file": str(out), "certificates": len(found)})
    else:
        say(f"{out}: {len(found)} certificate{'s' if len(found) > 1 else ''}")


def certificate_line(certificate: Certificate) -> str:
    """Return a certificate on one line."""
    state = CertificateState.Name(certificate.state).removeprefix("CERTIFICATE_STATE_")
    role = KeyRole.Name(certificate.role).removeprefix("KEY_ROLE_").lower()
    return (
        f"{certificate.serial.hex()}  {state}  {role:<10}  until {when(certificate.not_after)}  "
        f"{certificate.common_name} <{certificate.email}>"
    )
