"""Which certificates of a deployment end soon: those of the services, of people, of the archive, and of the CAs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Final

from cryptography import x509

from keyark.client.administration import list_certificates
from keyark.client.findings import SECONDS_PER_DAY, Examination, Finding, error, warning
from keyark.client.transport_memory import transport_certificate
from keyark.errors import KeyarkError
from keyark.pki.certificates import Validity, load_certificate, load_certificates
from keyark.pki.chains import path_in_force
from keyark.v1 import certificates_pb2

SERVICES: Final = ("rm", "cm", "drm")
TIMEOUT: Final = 10.0


async def certificates_end(examination: Examination) -> AsyncIterator[Finding]:
    """What ended, or ends within the time that is looked ahead."""
    for finding in (*_people(examination), *_authorities(examination)):
        yield finding
    async for finding in _transport(examination):
        yield finding
    async for finding in _users(examination):
        yield finding
    for role in SERVICES:
        try:
            certificate = await served_certificate(examination, role)
        except (OSError, TimeoutError):
            continue  # that it is away is told by another check
        command = f"keyark identities renew {role} --home {examination.home.folder}"
        for finding in _ending(examination, f"identity of {role}", certificate, command):
            yield finding


async def served_certificate(examination: Examination, role: str) -> x509.Certificate:
    """Return the certificate that a service presents; raises OSError and TimeoutError where it is away."""
    host, _, port = str(getattr(examination.home.config, role)).rpartition(":")
    folder = examination.home.identity_folder(examination.person("auditor"))
    context = ssl.create_default_context(cafile=examination.home.config.trust_anchor)
    context.load_cert_chain(
        folder / "cert.pem", folder / "key.pem", lambda: examination.password(folder / "key.pem") or b""
    )
    context.set_alpn_protocols(["h2"])
    name = f"{role}.{examination.home.config.trust_domain}"
    async with asyncio.timeout(TIMEOUT):
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
        try:
            presented: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return load_certificate(presented.getpeercert(binary_form=True) or b"")
        finally:
            writer.close()


def _ending(
    examination: Examination, subject: str, certificate: x509.Certificate, command: str
) -> Iterator[Finding]:
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


def _authorities(examination: Examination) -> Iterator[Finding]:
    home = examination.home
    yield from _ending(
        examination,
        "internal CA",
        home.trust_anchor,
        f"keyark authority init NEW --trust-domain {home.config.trust_domain}  # then new identities for everybody",
    )
    # Earlier CA keys and chains end when all that they signed has ended; nothing has to be done about them.
    issuing, *above = path_in_force(home.ca_chain)
    command = f"keyark ca rollover --home {home.folder} --name NAME  # then restart the services"
    yield from _ending(examination, "issuing CA", issuing, command)
    for certificate in above:
        command = f"keyark ca request --home {home.folder} --out ca.csr  # then `keyark ca install`"
        yield from _ending(examination, "CA above the issuing CA", certificate, command)


async def _transport(examination: Examination) -> AsyncIterator[Finding]:
    """The last third of the transport certificate's life, as the DRM serves it; it lives for weeks only."""
    try:
        async with examination.session("drm", "auditor") as session:
            served = await transport_certificate(session.channel)
    except KeyarkError:
        return  # that it is away is told by another check
    newest = load_certificate(served.certificate)
    validity, home = Validity.of(newest), examination.home.folder
    third = (validity.not_after - validity.not_before) // 3
    action = "renew" if validity.not_after < examination.now() else "rotate"
    soon = replace(examination, within=min(examination.within, third))
    for finding in _ending(soon, "transport key", newest, f"keyark transport-key {action} --home {home}"):
        yield finding


async def _users(examination: Examination) -> AsyncIterator[Finding]:
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
