"""Makes the frozen examples of checkpoints and receipts in the folder ``transparency``.

Run once, from the project's folder, as ``python -m tests.vectors.make_transparency``. The private keys are thrown
away and two of the signature types are randomized, so another run gives other examples; it overwrites none.
"""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyark.clock import ManualClock
from keyark.store import MemoryStore
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.log import TABLES, Log
from keyark.transparency.receipts import format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent

FOLDER = Path(__file__).parent / "transparency"
DRM, RM = "example.org/drm", "example.org/rm"
OWNER = {
    "caller": "spiffe://example.org/client/alice",
    "common_name": "Alice Example",
    "email": "alice@example.org",
}


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


def archived(name: str) -> LoggedEvent:
    event = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_KEY_ARCHIVED,
        time_us=1_700_000_000_000_000,
        enrollment_id=digest(f"{name} enrollment"),
        statement_sha256=digest(f"{name} statement"),
        signing_spki_sha256=digest(f"{name} signing key"),
        encryption_spki_sha256=digest(f"{name} encryption key"),
        storage_key_id=digest("storage key"),
    )
    return new_event(event, AuditDetails(profile="staff", match_proof="rsa-2048:components+decrypt", **OWNER))


def write(name: str, data: bytes) -> None:
    with (FOLDER / name).open("xb") as file:
        file.write(data)


def write_key(name: str, key: PrivateKeyTypes) -> None:
    write(f"{name}.pub.pem", key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def make_checkpoints(keys: dict[str, tuple[str, PrivateKeyTypes]]) -> dict[str, object]:
    expected: dict[str, object] = {}
    for name, (origin, key) in keys.items():
        head = Checkpoint(origin, 20852163, digest(f"root of {origin}"))
        write(f"{name}.checkpoint", NoteSigner.from_private_key(origin, key).sign(head))
        write_key(name, key)
        expected[name] = {"origin": origin, "size": head.size, "root": head.root.hex()}
    return expected


async def make_receipt(key: PrivateKeyTypes) -> dict[str, object]:
    log = Log(origin=DRM, signer=NoteSigner.from_private_key(DRM, key), clock=ManualClock())
    store = MemoryStore(tables=TABLES, finisher=log.finisher)
    await log.open(store)
    events = [archived(f"example {number}") for number in range(12)]
    places = await store.update(lambda txn: [log.append(txn, event) for event in events])
    head, index = await log.checkpoint(), places[6].index
    extra, proof = events[6].SerializeToString(), log.inclusion_proof(index, head)
    write(
        "archival-receipt.tlog-proof",
        format_proof(extra=extra, index=index, proof=proof, checkpoint=head.note),
    )
    await log.close()
    await store.close()
    return {
        "key": "ecdsa-p256",
        "origin": DRM,
        "index": index,
        "size": head.size,
        "root": head.root.hex(),
        "leaf": events[6].leaf.hex(),
        "enrollment_id": digest("example 6 enrollment").hex(),
        **OWNER,
    }


def main() -> None:
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    checkpoints = make_checkpoints(
        {
            "ed25519": (RM, Ed25519PrivateKey.generate()),
            "ecdsa-p256": (DRM, ecdsa),
            "rsa-3072": (DRM, rsa.generate_private_key(65537, 3072)),
        }
    )
    expected = {"checkpoints": checkpoints, "receipt": asyncio.run(make_receipt(ecdsa))}
    write("expected.json", json.dumps(expected, indent=2).encode() + b"\n")


if __name__ == "__main__":
    main()
