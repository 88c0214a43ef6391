"""Logs, signing keys, entries and a naive reference tree for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyark.clock import ManualClock
from keyark.errors.services import StoreFullError
from keyark.store import MemoryStore, Store
from keyark.store.memory import Tables
from keyark.transparency.checkpoint import CheckpointSigner, NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.log import TABLES, Log
from keyark.transparency.receipts import format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent

ORIGIN = "example.org/drm"
ROWS = "rows"
OWNER = {"caller": "spiffe://example.org/client/alice", "common_name": "Alice", "email": "alice@example.org"}


@cache
def ed25519_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)


@cache
def ecdsa_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(7, ec.SECP256R1())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class FailingStore(MemoryStore):
    """A store whose commits fail while ``fails`` is set, after the finisher ran."""

    fails = False

    def commit(self, tables: Tables) -> None:
        if self.fails:
            raise StoreFullError("The disk is full; no space left on device.")
        super().commit(tables)


def memory_store(log: Log, *, tables: Sequence[str] = ()) -> FailingStore:
    return FailingStore(tables=(*TABLES, ROWS, *tables), finisher=log.finisher)


def new_log(signer: CheckpointSigner | None = None, clock: ManualClock | None = None) -> Log:
    """A log that is not open; its key is the ECDSA one."""
    signer = signer or NoteSigner.from_private_key(ORIGIN, ecdsa_key())
    return Log(origin=ORIGIN, signer=signer, clock=clock or ManualClock())


async def opened_log(signer: CheckpointSigner | None = None) -> tuple[Log, FailingStore]:
    """A log in a fresh store; its only leaf is LOG_CREATED."""
    log = new_log(signer)
    store = memory_store(log)
    await log.open(store)
    return log, store


def entry(number: int = 0) -> LoggedEvent:
    """A KEY_ARCHIVED entry that differs from those of other numbers."""
    return new_event(archived_event(number), AuditDetails(profile="staff", **OWNER), salt=b"s" * 16)


def archived_event(number: int = 0) -> AuditEvent:
    def digest(name: str) -> bytes:
        return sha256(f"{name}{number}".encode()).digest()

    return AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_KEY_ARCHIVED,
        time_us=1_700_000_000_000_000 + number,
        enrollment_id=digest("enrollment"),
        statement_sha256=digest("statement"),
        signing_spki_sha256=digest("signing"),
        encryption_spki_sha256=digest("encryption"),
        storage_key_id=digest("storage"),
    )


async def append(log: Log, store: Store, *events: LoggedEvent) -> list[int]:
    """Append entries in one transaction; returns their indices."""
    places = await store.update(lambda txn: [log.append(txn, event) for event in events])
    return [place.index for place in places]


async def receipt_of(log: Log, index: int) -> bytes:
    head = await log.checkpoint(covering=index)
    return format_proof(
        extra=log.entry(index).SerializeToString(),
        index=index,
        proof=log.inclusion_proof(index, head),
        checkpoint=head.note,
    )


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = reference_split(len(leaves))
    return sha256(b"\x01" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


def reference_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = reference_split(len(leaves))
    if index < split:
        return [*reference_path(index, leaves[:split]), reference_root(leaves[split:])]
    return [*reference_path(index - split, leaves[split:]), reference_root(leaves[:split])]


def reference_subproof(first_size: int, leaves: Sequence[bytes], *, complete: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1."""
    if first_size == len(leaves):
        return [] if complete else [reference_root(leaves)]
    split = reference_split(len(leaves))
    if first_size <= split:
        left = reference_subproof(first_size, leaves[:split], complete=complete)
        return [*left, reference_root(leaves[split:])]
    right = reference_subproof(first_size - split, leaves[split:], complete=False)
    return [*right, reference_root(leaves[:split])]


def reference_split(count: int) -> int:
    split = 1
    while split * 2 < count:
        split *= 2
    return split
