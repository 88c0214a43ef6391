"""Which certificates of a deployment end soon: those of the services, of people, of the archive, and of the CAs."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from keyark.addresses import Address, parse_addresses
from keyark.client.access.transport_memory import transport_certificate
from keyark.client.administration.lists import list_certificates
from keyark.client.audit.findings import Examination, Finding, error, warning
from keyark.clock import SECONDS_PER_DAY
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.v1 import certificates_pb2
from keyark.x509.certificates import Validity, load_certificate, load_certificates
from keyark.x509.chains import path_in_force

TIMEOUT: Final = 10.0
IDENTITY_SECONDS: Final = 2 * 365 * SECONDS_PER_DAY
"""How long the authority lets identities be valid."""
MAX_NAME: Final = 64
"""Bytes of a CA's common name."""
MAX_DIGITS: Final = 6


async def certificates_end(examination: Examination) -> AsyncIterator[Finding]:
    """What ended, or ends within the time that is looked ahead, in the order in which the commands can be given.

    Of services that do not run, what lies below this home is looked at.
    """
    for finding in _internal_ca(examination):
        yield finding
    for role in SERVICE_ROLES:
        certificate = await _service_certificate(examination, role)
        command = f"keyark identities renew {role} --home {examination.home.folder}"
        for finding in _ending(examination, f"identity of {role}", certificate, command):
            yield finding
    for finding in _people(examination):
        yield finding
    async for finding in _transport(examination):
        yield finding
    for finding in _issuing_cas(examination):
        yield finding


async def _service_certificate(examination: Examination, role: str) -> x509.Certificate | None:
    """Return the identity's certificate: as presented, else as it lies here; None where the service is elsewhere."""
    try:
        return await served_certificate(examination, role)
    except (OSError, TimeoutError, KeyarkError):  # that it is away is told by another check
        path = examination.service_file(role).with_name("identity.pem")
        return load_certificates(path)[0] if path.exists() else None


async def served_certificate(examination: Examination, role: str) -> x509.Certificate:
    """Return the certificate that a service presents where it answers first; raises OSError and TimeoutError."""
    *earlier, last = parse_addresses(getattr(examination.home.config, role))
    for address in earlier:
        with contextlib.suppress(OSError, TimeoutError):
            return await _presented(examination, role, address)
    return await _presented(examination, role, last)


async def _presented(examination: Examination, role: str, address: Address) -> x509.Certificate:
    folder = examination.home.identity_folder(examination.person("auditor"))
    context = ssl.create_default_context(cafile=examination.home.config.trust_anchor)
    context.load_cert_chain(
        folder / "cert.pem", folder / "key.pem", lambda: examination.password(folder / "key.pem") or b""
    )
    context.set_alpn_protocols(["h2"])
    name = f"{role}.{examination.home.config.trust_domain}"
    async with asyncio.timeout(TIMEOUT):
        _, writer = await asyncio.open_connection(
            address.host, address.port, ssl=context, server_hostname=name
        )
        try:
            presented: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return load_certificate(presented.getpeercert(binary_form=True) or b"")
        finally:
            writer.close()


def _ending(
    examination: Examination, subject: str, certificate: x509.Certificate | None, command: str
) -> Iterator[Finding]:
    if certificate is None:
        return
    left = Validity.of(certificate).not_after - examination.now()
    if left < 0:
        yield error(subject, f"its certificate ended {-left / SECONDS_PER_DAY:.0f} days ago", command)
    elif left < examination.within:
        yield warning(subject, f"its certificate ends in {left / SECONDS_PER_DAY:.0f} days", command)


def _people(examination: Examination) -> Iterator[Finding]:
    folder = examination.home.folder
    for path in sorted(folder.glob("identities/*/*/cert.pem")):
        name = f"{path.parent.parent.name}/{path.parent.name}"
        command = f"keyark identities renew {name} --home {folder}"
        yield from _ending(examination, f"identity of {name}", load_certificates(path)[0], command)


def _internal_ca(examination: Examination) -> Iterator[Finding]:
    """Told as long before its end as identities live: what is issued from then on would end with it."""
    home, soon = examination.home, replace(examination, within=max(examination.within, IDENTITY_SECONDS))
    command = f"keyark authority renew --home {home.folder}"
    if not (home.folder / "authority").is_dir():
        command = "keyark authority renew --authority AUTHORITY"
    yield from _ending(
        soon,
        "internal CA",
        home.trust_anchor,
        f"{command}  # then restart the services; on other hosts, replace trust-anchor.pem",
    )


def _issuing_cas(examination: Examination) -> Iterator[Finding]:
    """Earlier CA keys and chains end when all that they signed has ended; nothing has to be done about them."""
    home = examination.home
    issuing, *above = path_in_force(home.ca_chain)
    name = shlex.quote(_next_name(issuing.subject))
    command = f"keyark ca rollover --home {home.folder} --name {name}  # then restart the services"
    yield from _ending(examination, "issuing CA", issuing, command)
    for certificate in above:
        command = f"keyark ca request --home {home.folder} --out ca.csr  # then `keyark ca install`"
        yield from _ending(examination, "CA above the issuing CA", certificate, command)


def _next_name(subject: x509.Name) -> str:
    """Return a name for the issuing CA's next key: the present one with the next number at its end."""
    present = next((str(part.value) for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)), "")
    stem, _, last = present.rpartition(" ")
    if not (stem and last.isascii() and last.isdigit() and len(last) <= MAX_DIGITS):
        stem, last = present or "Issuing CA", "1"
    room = MAX_NAME - MAX_DIGITS - 2
    return f"{stem.encode()[:room].decode(errors='ignore')} {int(last) + 1}"


async def _transport(examination: Examination) -> AsyncIterator[Finding]:
    """The last third of the transport certificate's life; it lives for weeks only."""
    try:
        async with examination.session("drm", "auditor") as session:
            served = await transport_certificate(session.channel)
        newest = load_certificate(served.certificate)
    except KeyarkError:  # that it is away is told by another check; this home has what was offered last
        newest = load_certificates(examination.home.config.transport)[0]
    validity, home = Validity.of(newest), examination.home.folder
    third = (validity.not_after - validity.not_before) // 3
    action = "renew" if validity.not_after < examination.now() else "rotate"
    soon = replace(examination, within=min(examination.within, third))
    for finding in _ending(soon, "transport key", newest, f"keyark transport-key {action} --home {home}"):
        yield finding


async def users_certificates_end(examination: Examination) -> AsyncIterator[Finding]:
    """Whether certificates of users end within the time that is looked ahead."""
    now = int(examination.now())
    soon = certificates_pb2.CertificateFilter(
        state=certificates_pb2.CertificateState.CERTIFICATE_STATE_VALID,
        expires_from=now,
        expires_until=now + examination.within,
    )
    async with examination.session("cm", "officer") as session:
        async for certificate in list_certificates(session, soon):
            if certificate.renewed_by:
                continue
            yield warning(
                "users",
                f"certificates end soon, first that of {certificate.email}",
                f"keyark certificates expiring --within {-(-examination.within // SECONDS_PER_DAY)}d "
                f"--home {examination.home.folder}  # and each owner: keyark renew --in OLD --out NEW",
            )
            return
