"""Proofs that an entry is in a log (c2sp.org/tlog-proof@v1), and the archival receipt, which is such a proof.

A receipt is a text file that anyone checks offline with the transport certificate's public key::

    verifier = ReceiptVerifier("example.org/drm", transport_spki)
    receipt = verifier.verify(path.read_bytes())
    print(receipt.details.email, receipt.event.encryption_spki_sha256.hex())

Its ``extra`` is a serialized LoggedEvent: the exact bytes of the KEY_ARCHIVED leaf, which are hashed and
never encoded anew, with its salt and details.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from keyark.errors import KeyarkError, Kind
from keyark.sizes import HASH_SIZE
from keyark.transparency._text import decode_base64, encode_base64, parse_decimal
from keyark.transparency.checkpoint import MAX_NOTE_SIZE, Checkpoint, NoteVerifier, VerifiedHead
from keyark.transparency.events import OpenedEvent, open_event, parse_logged_event
from keyark.transparency.merkle import leaf_hash, verify_inclusion
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

HEADER: Final = b"c2sp.org/tlog-proof@v1"
MAX_PROOF_SIZE: Final = 2 * MAX_NOTE_SIZE
"""Bytes of a whole proof."""
MAX_PATH: Final = 63
"""Hashes in a proof: as many as the largest tree is high."""

_EXTRA: Final = b"extra "
_INDEX: Final = b"index "
_KEPT_NOTES: Final = 16
_IDS: Final = (
    "enrollment_id",
    "statement_sha256",
    "signing_spki_sha256",
    "encryption_spki_sha256",
    "storage_key_id",
)


class ReceiptError(KeyarkError):
    """The receipt does not prove what it was shown for."""

    reason = "RECEIPT_INVALID"
    kind = Kind.INVALID


class ReceiptFormatError(ReceiptError):
    """The bytes are no tlog-proof, or its entry is not that of an archived key."""

    reason = "RECEIPT_FORMAT"


class ReceiptMismatchError(ReceiptError):
    """The receipt is genuine and for something else; ``metadata["field"]`` names what differs."""

    reason = "RECEIPT_MISMATCH"


@dataclass(frozen=True)
class TlogProof:
    """A parsed proof, nothing of it verified; ``extra`` is empty where the line is absent."""

    extra: bytes
    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, kw_only=True)
class ProvenLeaf:
    """A verified proof: a leaf, and the signed tree that it is in."""

    event: AuditEvent
    leaf: bytes
    index: int
    checkpoint: Checkpoint
    note: bytes

    @property
    def head(self) -> VerifiedHead:
        """The signed tree that it is in."""
        return VerifiedHead(self.checkpoint, self.note)


@dataclass(frozen=True, kw_only=True)
class ProvenEntry(ProvenLeaf):
    """A verified proof of a leaf with its details."""

    details: AuditDetails


ArchivalReceipt: TypeAlias = ProvenEntry
"""The proven entry of an archived key."""


def format_proof(*, extra: bytes, index: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """Return a tlog-proof@v1 file; ``checkpoint`` is the signed note, ``proof`` goes up from the leaf."""
    lines = [HEADER]
    if extra:
        lines.append(_EXTRA + encode_base64(extra))
    lines.append(b"index %d" % index)
    lines.extend(encode_base64(sibling) for sibling in proof)
    return b"\n".join((*lines, b"", checkpoint))


def parse_proof(data: bytes) -> TlogProof:
    """Read a tlog-proof@v1 file; raises ReceiptFormatError for anything that would be written otherwise."""
    if len(data) > MAX_PROOF_SIZE:
        raise ReceiptFormatError(f"The receipt is larger than {MAX_PROOF_SIZE} bytes.")
    head, separator, checkpoint = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if lines.pop(0) != HEADER or not separator:
        raise ReceiptFormatError(f"The receipt does not begin with {HEADER.decode()}, or has no checkpoint.")
    try:
        extra = _after(_EXTRA, lines.pop(0)) if lines and lines[0].startswith(_EXTRA) else None
        index = parse_decimal(_after(_INDEX, lines.pop(0) if lines else b""))
        proof = tuple(decode_base64(line) for line in lines)
        opened = b"" if extra is None else decode_base64(extra)
    except ValueError:
        raise ReceiptFormatError("A line of the receipt is malformed.") from None
    if extra == b"" or len(proof) > MAX_PATH or any(len(sibling) != HASH_SIZE for sibling in proof):
        raise ReceiptFormatError("The receipt's extra is empty, or its proof is not one of SHA-256 hashes.")
    return TlogProof(opened, index, proof, checkpoint)


def _after(keyword: bytes, line: bytes) -> bytes:
    if not line.startswith(keyword):
        raise ValueError("another line was expected")
    return line[len(keyword) :]


class ReceiptVerifier:
    """Verifies archival receipts under transport keys; a checkpoint that many share is checked once."""

    def __init__(self, origin: str, transport_public_key_der: bytes, *older: bytes) -> None:
        """Take the DRM log's origin and transport keys as SubjectPublicKeyInfo (DER); see NoteVerifier."""
        self._verifier = NoteVerifier.from_public_key(origin, transport_public_key_der, *older)
        self._verified: dict[bytes, Checkpoint] = {}

    def verify(self, receipt: bytes) -> ArchivalReceipt:
        """Return what a receipt proves; raises as ``verify_entry``, and for the entry of no archived key."""
        proven = self.verify_entry(receipt)
        if proven.event.type != EventType.EVENT_TYPE_KEY_ARCHIVED:
            raise ReceiptFormatError("The receipt's entry is not that of an archived key, with its details.")
        if not all(getattr(proven.event, name) for name in _IDS):
            raise ReceiptFormatError("The receipt's entry lacks an id of the archived key.")
        return proven

    def verify_entry(self, proof: bytes) -> ProvenEntry:
        """Return the entry of any type, with its details, that a tlog-proof@v1 file proves to be in the log.

        Raises ReceiptFormatError, EventError where the entry is malformed or its details are not those that
        it binds, CheckpointError where the log's signature does not verify, and InclusionProofError.
        """
        parsed, opened = _open(proof)
        if opened.details is None:
            raise ReceiptFormatError("The entry of the proof has no details; fetch it again.")
        leaf = self._prove(parsed, opened.event)
        return ProvenEntry(
            event=leaf.event,
            details=opened.details,
            leaf=leaf.leaf,
            index=leaf.index,
            checkpoint=leaf.checkpoint,
            note=leaf.note,
        )

    def verify_leaf(self, proof: bytes) -> ProvenLeaf:
        """Return a leaf that a file proves to be in the log, whether its details came along or were erased.

        Raises as ``verify_entry`` does.
        """
        parsed, opened = _open(proof)
        return self._prove(parsed, opened.event)

    def _prove(self, parsed: TlogProof, event: AuditEvent) -> ProvenLeaf:
        leaf = parse_logged_event(parsed.extra).leaf
        checkpoint = self.verify_note(parsed.checkpoint)
        verify_inclusion(
            leaf_hash=leaf_hash(leaf),
            index=parsed.index,
            tree_size=checkpoint.size,
            proof=parsed.proof,
            root=checkpoint.root,
        )
        return ProvenLeaf(
            event=event, leaf=leaf, index=parsed.index, checkpoint=checkpoint, note=parsed.checkpoint
        )

    def verify_note(self, note: bytes) -> Checkpoint:
        """Return the checkpoint of a signed note; raises as ``NoteVerifier.verify`` does."""
        checkpoint = self._verified.get(note)
        if checkpoint is None:
            checkpoint = self._verifier.verify(note)
            if len(self._verified) >= _KEPT_NOTES:
                del self._verified[next(iter(self._verified))]
            self._verified[note] = checkpoint
        return checkpoint


def _open(proof: bytes) -> tuple[TlogProof, OpenedEvent]:
    parsed = parse_proof(proof)
    return parsed, open_event(parse_logged_event(parsed.extra))


def check_receipt(
    receipt: ArchivalReceipt,
    *,
    enrollment_id: bytes,
    statement_sha256: bytes,
    signing_spki_sha256: bytes,
    encryption_spki_sha256: bytes,
    caller: str,
    common_name: str,
    email: str,
) -> None:
    """Raise ReceiptMismatchError unless a verified receipt is for this enrollment, its keys and its owner.

    The id and the three hashes are 32 bytes, ``caller`` is a SPIFFE ID.
    """
    event, details = receipt.event, receipt.details
    for name, found, expected in (
        ("enrollment_id", event.enrollment_id, enrollment_id),
        ("statement_sha256", event.statement_sha256, statement_sha256),
        ("signing_spki_sha256", event.signing_spki_sha256, signing_spki_sha256),
        ("encryption_spki_sha256", event.encryption_spki_sha256, encryption_spki_sha256),
        ("caller", details.caller, caller),
        ("common_name", details.common_name, common_name),
        ("email", details.email, email),
    ):
        if found != expected:
            raise ReceiptMismatchError(
                f"The archival receipt is for another {name}; show the one of this enrollment.",
                metadata={"field": name},
            )
