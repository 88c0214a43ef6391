"""What attacks need: identities with odd properties, private keys encoded by hand, and proof that nothing changed."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyark.client.access.home import Home
from keyark.client.access.sessions import open_session
from keyark.client.administration import lists as administration
from keyark.client.trust.receipts import list_entries
from keyark.errors import KeyarkError
from keyark.files import make_private_folder
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys import der as _der
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import encode_private_key, load_private_key, save_private_key
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import registration_pb2 as pb
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.authority import Authority, create_internal_ca
from keyark.x509.certificates import Validity, encode_pem_certificates, load_certificates, save_certificates
from tests.support.keys.crypto import integer, private_key_info
from tests.support.stories.enrolling import Enroller

TRUST_DOMAIN = "example.org"
DAY = 86_400
EC_PUBLIC_KEY = "1.2.840.10045.2.1"
P256 = "1.2.840.10045.3.1.7"
ML_KEM_768 = "2.16.840.1.101.3.4.4.2"


# Identities


def internal_ca(folder: Path) -> Authority:
    """The CA behind a deployment's mutual TLS."""
    return Authority(
        certificate=load_certificates(folder / "authority" / "internal-ca.pem")[0],
        private_key=load_private_key(folder / "authority" / "internal-ca-key.pem"),  # type: ignore[arg-type]
    )


def another_ca(folder: Path) -> Authority:
    """A CA that has the name of the deployment's own, and another key."""
    return create_internal_ca(
        generate_signing(KeyType.EC_P256),
        subject=internal_ca(folder).certificate.subject,
        validity=Validity.starting(int(time.time()), lifetime_seconds=30 * DAY),
    )


def forge_identity(
    folder: Path,
    *,
    uris: Sequence[str],
    dns: Sequence[str] = (),
    purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    authority: Authority | None = None,
    starting: int = 0,
    seconds: int = DAY,
) -> LocalIdentity:
    """Have the internal CA, or another, sign whatever is asked; ``starting`` is in seconds from now."""
    signer, key = authority or internal_ca(folder), generate_signing(KeyType.EC_P256)
    validity = Validity.starting(int(time.time()) + starting, lifetime_seconds=seconds)
    not_before, not_after = validity.dates()
    names = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *(x509.DNSName(name) for name in dns)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer.private_key, SHA256())  # type: ignore[arg-type]
    return local_identity(folder, key, [certificate])


def local_identity(folder: Path, key: Any, chain: Sequence[x509.Certificate]) -> LocalIdentity:
    """An identity to open channels with; what is in its certificate is not looked at."""
    return LocalIdentity(
        spiffe_id=SpiffeId(TRUST_DOMAIN, "client/nobody"),
        private_key=encode_private_key(key),
        certificate=encode_pem_certificates(chain),
        trust_anchor=(folder / "trust-anchor.pem").read_bytes(),
    )


def add_person(folder: Path, path: str) -> None:
    """Give a deployment one more person, "client/other", as its operator would."""
    identity, key = SpiffeId(TRUST_DOMAIN, path), generate_signing(KeyType.EC_P256)
    certificate = issue_identity(
        internal_ca(folder),
        request_identity(key, identity),
        identity=identity,
        validity=Validity.starting(int(time.time()), lifetime_seconds=DAY),
    )
    home = folder / "identities" / path
    make_private_folder(home)
    save_private_key(home / "key.pem", key)
    save_certificates(home / "cert.pem", [certificate])


def grant(folder: Path, path: str, domain: str) -> None:
    """Let one more caller enroll addresses of a domain."""
    config = folder / "rm" / "rm.toml"
    text, count = re.subn(
        r"^callers = \[",
        f'callers = [{{ caller = "{path}", domains = ["{domain}"], common_names = [".+"] }}, ',
        config.read_text(),
        flags=re.MULTILINE,
    )
    assert count == 1
    config.write_text(text)


# Private keys that no library writes


def ec_pkcs8(scalar: int) -> bytes:
    """PKCS#8 of a P-256 key with any scalar (RFC 5915 §3)."""
    algorithm = _der.sequence(_der.object_identifier(EC_PUBLIC_KEY), _der.object_identifier(P256))
    content = _der.sequence(integer(1), _der.octet_string(scalar.to_bytes(32, "big")))
    return private_key_info(algorithm, content)


def expanded_ml_kem_pkcs8() -> bytes:
    """PKCS#8 of an ML-KEM-768 key without its seed (RFC 9935 §6)."""
    algorithm = _der.sequence(_der.object_identifier(ML_KEM_768))
    return private_key_info(algorithm, _der.octet_string(bytes(2400)))


# What a deployment holds


@dataclass(frozen=True)
class Holdings:
    """Everything that an attack must leave as it was, and every refusal by subsystem: (caller, reason)."""

    certificates: int
    keys: int
    enrollments: int
    refusals: dict[str, list[tuple[str, str]]]

    @property
    def counts(self) -> tuple[int, int, int]:
        """What was issued, archived and delivered."""
        return self.certificates, self.keys, self.enrollments


async def take_stock(home: Home) -> Holdings:
    """Look at what the three subsystems hold, as those look who may."""
    async with open_session(home, "cm", identity="officer/officer") as session:
        certificates = len([c async for c in administration.list_certificates(session)])
    async with open_session(home, "rm", identity="officer/officer") as session:
        enrollments = len([e async for e in administration.list_enrollments(session)])
    async with open_session(home, "drm", identity="agent/alice") as session:
        keys = len([k async for k in administration.list_keys(session)])
    refusals = {role: await refusals_of(home, role) for role in ("rm", "cm", "drm")}
    return Holdings(certificates, keys, enrollments, refusals)


async def refusals_of(home: Home, role: str) -> list[tuple[str, str]]:
    """Caller and reason of every REQUEST_REJECTED entry of a subsystem's log, oldest first."""
    async with open_session(home, role, identity="auditor/auditor") as session:
        details = [
            AuditDetails.FromString(entry.event.details)
            async for entry in list_entries(session)
            if AuditEvent.FromString(entry.event.leaf).type == EventType.EVENT_TYPE_REQUEST_REJECTED
        ]
    return [(told.caller, told.reason) for told in details]


@asynccontextmanager
async def nothing_changes(home: Home) -> AsyncIterator[None]:
    """Fails where something was issued, archived or delivered meanwhile."""
    before = await take_stock(home)
    yield
    assert (await take_stock(home)).counts == before.counts


async def refused(
    home: Home, enroller: Enroller, request: pb.EnrollmentRequest, *, also_by: Sequence[str] = ()
) -> KeyarkError:
    """Send a request that has to be refused, and to leave an entry in the logs of the RM and of ``also_by``."""
    before = await take_stock(home)
    outcome = (await enroller.send(request))[0]
    after = await take_stock(home)
    assert isinstance(outcome, KeyarkError), outcome
    assert after.counts == before.counts
    entries = {
        "rm": (enroller.caller, outcome.reason),
        **dict.fromkeys(also_by, (f"spiffe://{TRUST_DOMAIN}/rm", outcome.reason)),
    }
    for role, refusals in after.refusals.items():
        assert refusals == before.refusals[role] + ([entries[role]] if role in entries else []), role
    assert outcome.message.endswith(".")
    return outcome
