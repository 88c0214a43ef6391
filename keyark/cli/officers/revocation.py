"""`keyark certificates revoke|hold|release|revoke-own|publish-crls`: out of force and back, and told to all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from keyark.cli.listing import session_of, when
from keyark.cli.officers.certificates import DAY, certificate_line, certificates, officer_options
from keyark.cli.options import (
    password_file_option,
    password_source,
    person_options,
)
from keyark.cli.output import print_json, say
from keyark.cli.shape import to_json
from keyark.client.access.sessions import Session
from keyark.client.administration import lists as administration
from keyark.client.administration import revocation
from keyark.client.administration.abbreviations import whole_serial
from keyark.client.enrollment.folder import EnrollmentFolder
from keyark.errors import NotFoundError
from keyark.statements.revocations import OWN_REASONS
from keyark.v1.certificates_pb2 import Certificate, Crl
from keyark.x509.crl_entries import REASONS
from keyark.x509.serials import encode_serial

HOLD: Final = "certificateHold"
FINAL_REASONS: Final = [name for name in REASONS if name != HOLD]

pair_option = click.option("--pair", is_flag=True, help="Include the other certificate of the pair.")


reason_option = click.option(
    "--reason", type=click.Choice(FINAL_REASONS), default="unspecified", show_default=True
)
own_reason_option = click.option(
    "--reason",
    type=click.Choice([name for name, reason in REASONS.items() if reason in OWN_REASONS]),
    default="unspecified",
    show_default=True,
)
since_option = click.option(
    "--invalid-since", type=DAY, help="The time (UTC) since which the key may be compromised."
)


@certificates.command("revoke")
@click.argument("serial")
@pair_option
@reason_option
@since_option
@officer_options
def revoke(*, serial: str, pair: bool, reason: str, invalid_since: datetime | None, **options: Any) -> None:
    """Revoke a certificate permanently. SERIAL may be abbreviated."""

    async def work(session: Session) -> list[Certificate]:
        serials = await _serials(session, serial, both=pair)
        return await revocation.revoke_certificates(
            session, serials, reason=REASONS[reason], invalidity_time=_seconds(invalid_since)
        )

    _run(options, work)


@certificates.command("revoke-own")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--only",
    type=click.Choice(["signing", "encryption"]),
    help="Revoke this certificate alone instead of both.",
)
@own_reason_option
@since_option
@password_file_option("The file with the password of the signing key. Without it, a terminal asks.")
@person_options("client/enroller")
def revoke_own(
    *,
    folder: Path,
    only: str | None,
    reason: str,
    invalid_since: datetime | None,
    password_file: Path | None,
    **options: Any,
) -> None:
    """Revoke your own certificates, by proving possession of their signing key.

    FOLDER is the one that `keyark enroll` wrote.
    """
    enrolled = EnrollmentFolder(path=folder, ask=password_source(password_file))
    present = enrolled.present()
    serials = [
        encode_serial(certificate.serial_number)
        for role, certificate in enrolled.certificates_by_role().items()
        if only in (None, role)
    ]
    if not serials:
        raise NotFoundError(f"{folder} has no {only} certificate.")
    _run(
        options,
        lambda session: revocation.revoke_own_certificates(
            session,
            serials,
            signing_key=present.private_key,
            reason=REASONS[reason],
            invalidity_time=_seconds(invalid_since),
        ),
    )


@certificates.command("publish-crls")
@officer_options
def publish_crls(**options: Any) -> None:
    """Publish new certificate revocation lists now."""

    async def run() -> list[Crl]:
        async with session_of(options, "cm") as session:
            return await revocation.publish_crls(session)

    published = asyncio.run(run())
    if options["as_json"]:
        print_json([to_json(crl) for crl in published])
    else:
        for crl in published:
            say(f"{crl.name}  number {crl.number}  {crl.size} bytes  until {when(crl.next_update)}")


def _seconds(moment: datetime | None) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp()) if moment else 0


@certificates.command("hold")
@click.argument("serial")
@pair_option
@officer_options
def hold(*, serial: str, pair: bool, **options: Any) -> None:
    """Suspend a certificate until it is released or revoked. SERIAL may be abbreviated."""

    async def work(session: Session) -> list[Certificate]:
        serials = await _serials(session, serial, both=pair)
        return await revocation.hold_certificates(session, serials)

    _run(options, work)


@certificates.command("release")
@click.argument("serial")
@pair_option
@officer_options
def release(*, serial: str, pair: bool, **options: Any) -> None:
    """End the suspension of a certificate. SERIAL may be abbreviated."""

    async def work(session: Session) -> list[Certificate]:
        serials = await _serials(session, serial, both=pair)
        return await revocation.release_certificates(session, serials)

    _run(options, work)


async def _serials(session: Session, text: str, *, both: bool) -> list[bytes]:
    serial = await whole_serial(session, text)
    if not both:
        return [serial]
    other = (await administration.get_certificate(session, serial)).pair_serial
    return [serial, other] if other else [serial]


def _run(options: dict[str, Any], work: Callable[[Session], Awaitable[list[Certificate]]]) -> None:
    async def run() -> list[Certificate]:
        async with session_of(options, "cm") as session:
            return await work(session)

    changed = asyncio.run(run())
    if options["as_json"]:
        print_json([to_json(certificate) for certificate in changed])
    else:
        for certificate in changed:
            say(certificate_line(certificate))
