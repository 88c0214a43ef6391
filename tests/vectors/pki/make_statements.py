"""Makes statements.json, once: signed statements that every later release must read as this one does.

Run from the root of the repository: python -m tests.vectors.pki.make_statements
It refuses to overwrite, for a vector that changes guards nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, generate
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import build_statement, new_request_id, parse_statement, sign_statement

PATH = Path(__file__).with_name("statements.json")
CALLER = SpiffeId("example.org", "client/enroller")


def make(signing: KeyType, encryption: KeyType) -> dict[str, str]:
    """Return one signed statement with all that a reader derives from it; bytes are hexadecimal."""
    signing_key: Any = generate(signing)
    request_id = new_request_id()
    raw = build_statement(
        caller=CALLER,
        request_id=request_id,
        profile="person",
        common_name="Zoë Ünal",
        email="zoe@example.org",
        signing_spki=encode_spki(signing_key.public_key()),
        encryption_spki=encode_spki(generate(encryption).public_key()),
    ).raw
    statement = parse_statement(raw)
    pkcs8 = signing_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "signing_key_type": signing.value,
        "encryption_key_type": encryption.value,
        "signing_private_key": pkcs8.hex(),
        "request_id": request_id.hex(),
        "encryption_spki": statement.encryption_spki.hex(),
        "statement": raw.hex(),
        "statement_sha256": statement.sha256.hex(),
        "enrollment_id": statement.enrollment_id.hex(),
        "signing_spki_sha256": statement.signing_spki_sha256.hex(),
        "encryption_spki_sha256": statement.encryption_spki_sha256.hex(),
        "signature": sign_statement(raw, signing_key).hex(),
    }


def main() -> None:
    """Write one vector for each signing key type, and together all encryption key types."""
    encryption = [ENCRYPTION_KEY_TYPES[i % len(ENCRYPTION_KEY_TYPES)] for i in range(len(SIGNING_KEY_TYPES))]
    vectors = [make(*types) for types in zip(SIGNING_KEY_TYPES, encryption, strict=True)]
    with PATH.open("x") as file:
        json.dump({"caller": str(CALLER), "vectors": vectors}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
