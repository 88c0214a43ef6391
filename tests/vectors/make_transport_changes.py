"""Makes docs/vectors/transport_changes.json: how one transport key follows another, and what shows no such thing.

Run from the root of the repository as ``python -m tests.vectors.make_transport_changes``, once; it overwrites nothing.
"""

from __future__ import annotations

import json
from typing import Any

from keyark.keys.key_types import KeyType
from keyark.v1.audit_pb2 import TransportKeyChange
from keyark.x509.certificates import encode_certificate
from tests.support.keys.pki import DAY, NOW, internal_ca, spki
from tests.transparency.test_transport_keys import RETIRED, certificate, change, entry_proof
from tests.vectors.make_protocol import FOLDER, ORIGIN

REFUSED = {
    "the key in force did not sign the head, and its certificate is younger": change(
        2, 2, 4, certificate=certificate(2, begins=NOW + DAY // 2)
    ),
    "the new key did not sign the head": change(2, 1),
    "the leaf says that the key was retired": TransportKeyChange(
        proof=entry_proof(2, 2, 1, event_type=RETIRED), certificate=certificate(2)
    ),
    "the leaf names another key": TransportKeyChange(proof=entry_proof(3, 2, 1), certificate=certificate(2)),
    "the certificate is an agent's": change(2, 2, 1, certificate=certificate(2, role="agent/alice")),
}


def main() -> None:
    vectors: dict[str, Any] = {
        "origin": ORIGIN,
        "trust_anchor": encode_certificate(internal_ca().certificate).hex(),
        "key_in_force": spki(KeyType.EC_P256, 1).hex(),
        "certificate_in_force": certificate(1).certificate.hex(),
        "change": change(2, 2, 1).SerializeToString(deterministic=True).hex(),
        "next_key": spki(KeyType.EC_P256, 2).hex(),
        "refused": [
            {"why": why, "change": refused.SerializeToString(deterministic=True).hex()}
            for why, refused in REFUSED.items()
        ],
    }
    with (FOLDER / "transport_changes.json").open("x", encoding="utf-8") as file:
        json.dump(vectors, file, indent=1, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
