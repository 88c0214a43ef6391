"""Auditing: receipts checked offline, and whole logs checked against their signed checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keyark.client.access.home import Home
from keyark.client.access.sessions import Session
from keyark.client.access.transport_memory import known_transport_keys
from keyark.errors import ConfigurationError, KeyarkError, Kind
from keyark.files import read_file
from keyark.identity.certificates import identity_of
from keyark.identity.transport import transport_spki
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.spki import encode_spki
from keyark.rpc.calling.channels import call
from keyark.transparency.checkpoint import Checkpoint, CheckpointSignatureError, NoteVerifier
from keyark.transparency.events import open_event
from keyark.transparency.merkle import TreeHasher
from keyark.transparency.receipts import ArchivalReceipt, ReceiptVerifier
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.common_pb2 import PageRequest
from keyark.x509.certificates import Validity, load_certificates

TIMEOUT: Final = 30.0
PAGE: Final = 1000
MAX_RECEIPT: Final = 1 << 20


class ReceiptTimeError(KeyarkError):
    """The receipt is later than the certificate of the key that signed it."""

    reason = "RECEIPT_TIME"
    kind = Kind.PRECONDITION


class LogMismatchError(KeyarkError):
    """The entries of a log do not make the tree that its signed checkpoint names."""

    reason = "LOG_MISMATCH"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class AuditedLog:
    """A log whose every entry was fetched and found under the signed checkpoint, which ``note`` is."""

    checkpoint: Checkpoint
    note: bytes
    entries: int
    erased: int


def verify_receipt_file(receipt: Path, transport_certificate: Path) -> ArchivalReceipt:
    """Verify a receipt offline with the transport certificates (PEM, one or more) of its deployment.

    The receipt's leaf must not be later than the end of the key's certificate. Raises TransportCertificateError
    for a certificate that is not a transport key's, ReceiptTimeError, the errors of ``ReceiptVerifier``, and
    ConfigurationError if a file does not load.
    """
    certificates = load_certificates(transport_certificate)
    trust_domain = identity_of(certificates[0]).trust_domain
    file = read_file(receipt, max_size=MAX_RECEIPT)
    refusal = CheckpointSignatureError(f"No certificate in {transport_certificate} verifies the receipt.")
    for spki, ends in _transport_keys(certificates, trust_domain).items():
        try:
            verified = ReceiptVerifier(f"{trust_domain}/drm", spki).verify(file)
        except CheckpointSignatureError as error:  # it may be the signature of another transport key
            refusal = error
            continue
        if verified.event.time_us > ends * 1_000_000:
            raise ReceiptTimeError(
                "The receipt is dated after the end of the transport certificate that verifies it. Give the "
                "renewed certificate of this key. If there is none, do not trust the receipt."
            )
        return verified
    raise refusal


def log_verifier(home: Home, role: str) -> NoteVerifier:
    """Return what verifies a subsystem's newest checkpoints: the key that the home pins, or the DRM's key in force."""
    origin = f"{home.config.trust_domain}/{role}"
    if role == "drm":
        return NoteVerifier.from_public_key(origin, known_transport_keys(home).public_keys[0])
    path = home.config.rm_log_key if role == "rm" else home.config.cm_log_key
    try:
        spki = encode_spki(load_pem_public_key(read_file(path, max_size=MAX_RECEIPT)))
    except PARSING_ERRORS:
        raise ConfigurationError(
            f"{path} has no public key; copy the file from the deployment again."
        ) from None
    return NoteVerifier.from_public_key(origin, spki)


def seen_verifier(home: Home, role: str) -> NoteVerifier:
    """Return what verifies the checkpoints that a home saw before: under every key of the DRM that it knows, too."""
    if role != "drm":
        return log_verifier(home, role)
    return NoteVerifier.from_public_key(
        f"{home.config.trust_domain}/drm", *known_transport_keys(home).public_keys
    )


def archive_verifier(home: Home) -> ReceiptVerifier:
    """Return what verifies proofs under the DRM's newest heads: the transport key in force."""
    return ReceiptVerifier(f"{home.config.trust_domain}/drm", known_transport_keys(home).public_keys[0])


def _transport_keys(certificates: Sequence[x509.Certificate], trust_domain: str) -> dict[bytes, int]:
    """Return the SPKIs (DER), each with the end of its last certificate (seconds UTC)."""
    keys: dict[bytes, int] = {}
    for certificate in certificates:
        spki = transport_spki(certificate, trust_domain)
        keys[spki] = max(keys.get(spki, 0), Validity.of(certificate).not_after)
    return keys


async def list_entries(session: Session, *, first: int = 0) -> AsyncIterator[audit_pb2.LogEntry]:
    """Yield the entries of the subsystem's log from an index on; ``session`` is an auditor's."""
    stub = AuditServiceStub(session.channel)
    token = str(first) if first else ""
    while True:
        request = audit_pb2.ListEntriesRequest(page=PageRequest(page_size=PAGE, page_token=token))
        response = await call(stub.ListEntries, request, timeout=TIMEOUT)
        for entry in response.entries:
            yield entry
        if not (token := response.next_page_token):
            return


async def verify_log(session: Session) -> AuditedLog:
    """Fetch a service's whole log, and check that it matches its signed checkpoint.

    Raises LogMismatchError, the errors of ``NoteVerifier``, and EventError if details do not match their leaf.
    """
    stub = AuditServiceStub(session.channel)
    signed = await call(stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), timeout=TIMEOUT)
    checkpoint = log_verifier(session.home, session.role).verify(signed.checkpoint)
    tree, erased = TreeHasher(), 0
    async for entry in list_entries(session):
        if tree.size == checkpoint.size:
            break
        if entry.index != tree.size:
            raise LogMismatchError(f"Entry {tree.size} of the {session.role} log is missing.")
        open_event(entry.event)
        erased += not entry.event.salt
        tree.append(entry.event.leaf)
    if tree.size != checkpoint.size or tree.root() != checkpoint.root:
        raise LogMismatchError(
            f"The {tree.size} entries of the {session.role} log do not match its checkpoint of "
            f"{checkpoint.size} entries: an entry was altered, removed or added. Keep a copy, and tell "
            "the operators of all three services."
        )
    return AuditedLog(checkpoint=checkpoint, note=signed.checkpoint, entries=tree.size, erased=erased)
