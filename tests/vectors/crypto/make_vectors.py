"""Makes vectors.json, once: a sealed example of every suite, which every later release must open.

Run from the root of the repository: python -m tests.vectors.crypto.make_vectors
It refuses to overwrite, for a vector that changes guards nothing. The keys are made for it and used nowhere else.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.envelopes import TransportPublicKey, seal_to_transport
from keyark.custody.matching import match_proof_name, prove_match
from keyark.custody.storage import StoragePrivateKey, StoragePublicKey
from keyark.custody.token import create_software_token, open_share, open_software_token, recover_pin
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, TRANSPORT_KEY_TYPES, KeyType, generate
from keyark.keys.spki import encode_spki
from tests.support.keys.pki import identity_certificate, internal_ca

PATH = Path(__file__).with_name("vectors.json")
STATEMENT_SHA256 = sha256(b"a statement").digest()
LEAF = b"the exact bytes of a KEY_ARCHIVED leaf"


def encode(private_key: Any) -> bytes:
    """Return a private key as PKCS#8 DER."""
    return private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def make_envelope(key_type: KeyType) -> dict[str, str]:
    """Return a transport envelope with its transport key."""
    transport_key, private_key = generate(key_type), encode(generate(KeyType.EC_P256))
    public_key = TransportPublicKey.from_spki(encode_spki(transport_key.public_key()))
    envelope = seal_to_transport(
        private_key, transport_public_key=public_key, statement_sha256=STATEMENT_SHA256
    )
    return {
        "transport_key_type": key_type.value,
        "transport_private_key": encode(transport_key).hex(),
        "transport_key_id": public_key.key_id.hex(),
        "statement_sha256": STATEMENT_SHA256.hex(),
        "envelope": envelope.hex(),
        "private_key": private_key.hex(),
    }


def make_storage() -> dict[str, str]:
    """Return a sealed key with its storage key."""
    storage_key, private_key = StoragePrivateKey.generate(), encode(generate(KeyType.X25519))
    public_key = StoragePublicKey.from_bytes(storage_key.public_key.to_bytes())
    return {
        "storage_private_key": storage_key.to_bytes().hex(),
        "storage_public_key": public_key.to_bytes().hex(),
        "storage_key_id": public_key.key_id.hex(),
        "leaf": LEAF.hex(),
        "sealed_key": public_key.seal(private_key, LEAF).SerializeToString().hex(),
        "private_key": private_key.hex(),
    }


def make_token(quorum: int, names: list[str]) -> dict[str, Any]:
    """Return a software token with its agents' share keys, their shares, the PIN and the storage private key."""
    agents = []
    for name in names:
        key, share_key = generate(KeyType.EC_P256), ShareKey.generate()
        certificate = identity_certificate(f"agent/{name}", key=key)
        public = AgentShareKey.create(share_key=share_key, certificate=certificate, certificate_key=key)
        agents.append((share_key, public))
    token, _ = create_software_token([public for _, public in agents], quorum, generation=2, pin_epoch=3)
    shares = [open_share(token, share_key, public.agent) for share_key, public in agents]
    return {
        "quorum": quorum,
        "token": token.SerializeToString().hex(),
        "pin": recover_pin(token, shares).hex(),
        "storage_private_key": open_software_token(token, shares).to_bytes().hex(),
        "agents": [
            {
                "share_key_pem": share_key.to_pem(password=None).decode(),
                "public_file": json.loads(public.to_json()),
                "share": {"index": share.index, "value": share.value.hex()},
            }
            for (share_key, public), share in zip(agents, shares, strict=True)
        ],
    }


def make_match(key_type: KeyType) -> dict[str, str]:
    """Return a key pair whose halves match."""
    key = generate(key_type)
    private_key, spki = encode(key), encode_spki(key.public_key())
    return {
        "key_type": key_type.value,
        "encryption_spki": spki.hex(),
        "private_key": private_key.hex(),
        "re_encoded": prove_match(private_key, spki).hex(),
        "proof": match_proof_name(key_type),
    }


def main() -> None:
    """Write the vectors; raises FileExistsError."""
    vectors = {
        "comment": "Test keys, made for these vectors; binary values are hexadecimal.",
        "trust_anchor": internal_ca().certificate.public_bytes(Encoding.DER).hex(),
        "envelopes": [make_envelope(key_type) for key_type in TRANSPORT_KEY_TYPES],
        "storage": make_storage(),
        "tokens": [make_token(1, ["alice"]), make_token(2, ["alice", "bob", "carol"])],
        "matches": [make_match(key_type) for key_type in ENCRYPTION_KEY_TYPES],
    }
    with PATH.open("x") as file:
        file.write(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
