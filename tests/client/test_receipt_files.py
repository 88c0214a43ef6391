"""P6: a receipt file is genuine under a transport certificate only, whatever else the internal CA signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.client.trust.receipts import ReceiptTimeError, verify_receipt_file
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.identity.transport import TransportCertificateError
from keyark.keys.key_types import KeyType
from keyark.transparency.checkpoint import Checkpoint, CheckpointSignatureError, NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.certificates import Validity, save_certificates
from tests.support.keys.pki import DAY, NOW, TRUST_DOMAIN, internal_ca, private_key

KEY = private_key(KeyType.EC_P256, 70)


def receipt_file(folder: Path, *, time: int = NOW, key: object = KEY) -> Path:
    """A receipt of a log with one leaf, signed by ``key``."""
    event = AuditEvent(version=1, type=EventType.EVENT_TYPE_KEY_ARCHIVED, time_us=time * 1_000_000)
    for name in (
        "enrollment_id",
        "statement_sha256",
        "signing_spki_sha256",
        "encryption_spki_sha256",
        "storage_key_id",
    ):
        setattr(event, name, bytes(32))
    logged = new_event(event, AuditDetails(caller="made up"))
    head = Checkpoint(f"{TRUST_DOMAIN}/drm", 1, leaf_hash(logged.leaf))
    note = NoteSigner.from_private_key(head.origin, key).sign(head)
    path = folder / "receipt.tlog-proof"
    path.write_bytes(format_proof(extra=logged.SerializeToString(), index=0, proof=[], checkpoint=note))
    return path


def certificate_file(folder: Path, *, role: str = "drm/transport", key: object = KEY) -> Path:
    """What the internal CA signs for a role, for a month from NOW."""
    identity = SpiffeId(TRUST_DOMAIN, role)
    issued = issue_identity(
        internal_ca(),
        request_identity(key, identity),
        identity=identity,
        validity=Validity.starting(NOW, lifetime_seconds=30 * DAY),
    )
    path = folder / f"{role.replace('/', '-')}.pem"
    save_certificates(path, [issued])
    return path


@pytest.mark.parametrize("role", ["agent/alice", "client/enroller", "auditor/auditor", "rm", "cm", "drm"])
def test_a_receipt_under_a_certificate_of_any_other_role_is_refused(tmp_path: Path, role: str) -> None:
    with pytest.raises(TransportCertificateError):
        verify_receipt_file(receipt_file(tmp_path), certificate_file(tmp_path, role=role))


def test_a_receipt_of_its_time_is_genuine_after_the_end_of_its_certificate(tmp_path: Path) -> None:
    verified = verify_receipt_file(receipt_file(tmp_path), certificate_file(tmp_path))
    assert verified.details.caller == "made up"


def test_a_receipt_that_is_later_than_its_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReceiptTimeError):
        verify_receipt_file(receipt_file(tmp_path, time=NOW + 31 * DAY), certificate_file(tmp_path))


def test_a_receipt_under_another_transport_key_is_refused(tmp_path: Path) -> None:
    other = private_key(KeyType.EC_P256, 71)
    with pytest.raises(CheckpointSignatureError):
        verify_receipt_file(receipt_file(tmp_path, key=other), certificate_file(tmp_path))
