"""Makes the byte vectors of docs/protocol.md in the folder docs/vectors, once.

Run from the root of the repository as ``python -m tests.vectors.make_protocol``. It overwrites nothing, for a vector
that changes guards nothing. All keys are test keys. Bytes are hexadecimal; texts stand as they are.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from keyark.clock import ManualClock
from keyark.contexts import context
from keyark.custody.envelopes import ENVELOPE_LABEL, TransportPublicKey, seal_to_transport
from keyark.custody.matching import match_proof_name
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate
from keyark.keys.signatures import sign_message
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import (
    RENEWAL_LABEL,
    STATEMENT_LABEL,
    PresentCertificate,
    Statement,
    build_statement,
    new_request_id,
    parse_statement,
    sign_statement,
)
from keyark.store import MemoryStore
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.log import TABLES, Log
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.statement_pb2 import EnrollmentStatement, TransportEnvelope
from keyark.x509.certificates import encode_certificate
from tests.support.keys.pki import NOW, identity_certificate, internal_ca

FOLDER = Path(__file__).parents[2] / "docs" / "vectors"
CALLER = SpiffeId("example.org", "client/enroller")
ORIGIN = "example.org/drm"
KEY_TYPES = (
    (KeyType.EC_P256, KeyType.EC_P256),
    (KeyType.EC_P384, KeyType.EC_P384),
    (KeyType.EC_P521, KeyType.EC_P521),
    (KeyType.RSA_2048, KeyType.RSA_2048),
    (KeyType.ED25519, KeyType.X25519),
    (KeyType.ML_DSA_44, KeyType.RSA_3072),
    (KeyType.ML_DSA_65, KeyType.ML_KEM_768),
    (KeyType.ML_DSA_87, KeyType.ML_KEM_1024),
)


def pkcs8(key: Any) -> str:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


def make_contexts() -> dict[str, Any]:
    lists = [
        (STATEMENT_LABEL, (b"statement",)),
        (ENVELOPE_LABEL, (digest("transport key"), digest("statement"))),
        ("a", (b"", b"bc")),
        ("a", (b"b", b"c")),
    ]
    return {
        "contexts": [
            {"label": label, "parts": [part.hex() for part in parts], "context": context(label, *parts).hex()}
            for label, parts in lists
        ]
    }


@dataclass(frozen=True)
class Example:
    """A signed statement with all of its keys."""

    statement: Statement
    signature: bytes
    signing_key: Any
    encryption_key: Any

    @classmethod
    def make(cls, signing: KeyType, encryption: KeyType) -> Example:
        signing_key, encryption_key = generate(signing), generate(encryption)
        raw = build_statement(
            caller=CALLER,
            request_id=new_request_id(),
            profile="user",
            common_name="Zoë Ünal",
            email="zoe@example.org",
            signing_spki=encode_spki(signing_key.public_key()),
            encryption_spki=encode_spki(encryption_key.public_key()),
        ).raw
        return cls(parse_statement(raw), sign_statement(raw, signing_key), signing_key, encryption_key)  # type: ignore[arg-type]

    def vector(self) -> dict[str, Any]:
        statement = self.statement
        return {
            "signing_key_type": statement.signing_key_type.value,
            "encryption_key_type": statement.encryption_key_type.value,
            "signing_private_key": pkcs8(self.signing_key),
            "encryption_private_key": pkcs8(self.encryption_key),
            "fields": {
                "version": 1,
                "trust_domain": statement.trust_domain,
                "caller": str(statement.caller),
                "request_id": statement.request_id.hex(),
                "profile": statement.profile,
                "common_name": statement.common_name,
                "email": statement.email,
                "signing_spki": statement.signing_spki.hex(),
                "encryption_spki": statement.encryption_spki.hex(),
            },
            "statement": statement.raw.hex(),
            "statement_sha256": statement.sha256.hex(),
            "enrollment_id": statement.enrollment_id.hex(),
            "signing_spki_sha256": statement.signing_spki_sha256.hex(),
            "encryption_spki_sha256": statement.encryption_spki_sha256.hex(),
            "signed": context(STATEMENT_LABEL, statement.raw).hex(),
            "signature": self.signature.hex(),
        }


def make_statements(examples: list[Example]) -> dict[str, Any]:
    return {
        "statements": [example.vector() for example in examples],
        "renewal": make_renewal(examples[0], examples[4].signing_key),
        "refused": [*refused_statements(examples[0])],
        "refused_signatures": refused_signatures(examples[0]),
    }


def make_renewal(example: Example, present_key: Any) -> dict[str, Any]:
    """The same request as a renewal of a pair that has another signing key."""
    statement = example.statement
    raw = build_statement(
        caller=statement.caller,
        request_id=statement.request_id,
        profile=statement.profile,
        common_name=statement.common_name,
        email=statement.email,
        signing_spki=statement.signing_spki,
        encryption_spki=statement.encryption_spki,
        present=PresentCertificate(serial=bytes.fromhex("5e" * 20), private_key=present_key),
    ).raw
    renewal = Example(
        parse_statement(raw),
        sign_statement(raw, example.signing_key),
        example.signing_key,
        example.encryption_key,
    )
    without = EnrollmentStatement.FromString(raw)
    without.ClearField("renewal_signature")
    vector = renewal.vector()
    vector["fields"] |= {
        name: getattr(renewal.statement, name).hex() for name in ("renews", "renewal_signature")
    }
    signed = context(RENEWAL_LABEL, without.SerializeToString(deterministic=True))
    return {**vector, "present_private_key": pkcs8(present_key), "signed_by_present_key": signed.hex()}


def refused_statements(example: Example) -> list[dict[str, str]]:
    raw = example.statement.raw
    point = example.encryption_key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    x25519 = encode_spki(generate(KeyType.X25519).public_key())
    ed25519 = encode_spki(generate(KeyType.ED25519).public_key())
    version_4 = example.statement.request_id[:6] + b"\x40" + example.statement.request_id[7:]
    changed: list[tuple[str, str, str, dict[str, Any]]] = [
        ("version 2", "INVALID_INPUT", "version", {"version": 2}),
        ("the caller is an officer", "INVALID_INPUT", "caller", {"caller": "spiffe://example.org/officer/o"}),
        ("another trust domain", "INVALID_INPUT", "trust_domain", {"trust_domain": "example.net"}),
        ("a UUIDv4", "INVALID_INPUT", "request_id", {"request_id": version_4}),
        ("an upper-case profile", "INVALID_INPUT", "profile", {"profile": "User"}),
        ("65 characters", "INVALID_INPUT", "common_name", {"common_name": "Z" * 65}),
        ("not in normal form C", "INVALID_INPUT", "common_name", {"common_name": "Zoe\u0308"}),
        ("a space at the end", "INVALID_INPUT", "common_name", {"common_name": "Zoë "}),
        ("a control character", "INVALID_INPUT", "common_name", {"common_name": "Zoë\n"}),
        (
            "a filler, of which nobody sees anything",
            "INVALID_INPUT",
            "common_name",
            {"common_name": "Zoë\u3164"},
        ),
        ("a non-joiner between Latin letters", "INVALID_INPUT", "common_name", {"common_name": "Zo\u200cë"}),
        ("a domain of one label", "INVALID_INPUT", "email", {"email": "zoe@localhost"}),
        (
            "one key twice",
            "INVALID_INPUT",
            "encryption_spki",
            {"encryption_spki": example.statement.signing_spki},
        ),
        ("a compressed point", "SPKI_NOT_CANONICAL", "encryption_spki", {"encryption_spki": header + point}),
        ("no signing key", "UNSUPPORTED_KEY", "signing_spki", {"signing_spki": x25519}),
        ("no encryption key", "UNSUPPORTED_KEY", "encryption_spki", {"encryption_spki": ed25519}),
    ]
    cases = [(why, reason, field, replace(raw, **values)) for why, reason, field, values in changed]
    without_email = replace(raw, email="")
    cases += [
        ("a field that is not known", "INVALID_INPUT", "statement", raw + b"\x7a\x00"),
        ("a field twice", "INVALID_INPUT", "statement", raw + b"\x2a\x04user"),
        ("fields out of order", "INVALID_INPUT", "statement", raw[2:] + raw[:2]),
        ("a default written out", "INVALID_INPUT", "statement", without_email + b"\x3a\x00"),
        ("a number longer than needed", "INVALID_INPUT", "statement", b"\x08\x81\x00" + raw[2:]),
        ("cut short", "INVALID_INPUT", "statement", raw[:-1]),
        ("no message", "INVALID_INPUT", "statement", b"\xff"),
    ]
    return [
        {"why": why, "reason": reason, "field": field, "statement": data.hex()}
        for why, reason, field, data in cases
    ]


def replace(raw: bytes, **values: Any) -> bytes:
    message = EnrollmentStatement.FromString(raw)
    for name, value in values.items():
        setattr(message, name, value)
    return message.SerializeToString(deterministic=True)


def refused_signatures(example: Example) -> list[dict[str, str]]:
    raw, key = example.statement.raw, example.signing_key
    cases = [
        ("over the statement without its context", sign_message(key, raw)),
        ("under another label", sign_message(key, context(ENVELOPE_LABEL, raw))),
        ("by the encryption key", sign_message(example.encryption_key, context(STATEMENT_LABEL, raw))),
        ("empty", b""),
    ]
    return [
        {"why": why, "reason": "STATEMENT_SIGNATURE", "statement": raw.hex(), "signature": signature.hex()}
        for why, signature in cases
    ]


def make_envelopes(example: Example, transport_keys: list[Any]) -> dict[str, Any]:
    return {"envelopes": [make_envelope(example, key) for key in transport_keys]}


def make_envelope(example: Example, key: Any) -> dict[str, Any]:
    transport = TransportPublicKey.from_spki(encode_spki(key.public_key()))
    statement_sha256 = example.statement.sha256
    private_key = bytes.fromhex(pkcs8(example.encryption_key))
    envelope = seal_to_transport(
        private_key, transport_public_key=transport, statement_sha256=statement_sha256
    )
    message = TransportEnvelope.FromString(envelope)
    return {
        "suite": message.suite,
        "transport_private_key": pkcs8(key),
        "transport_key_id": transport.key_id.hex(),
        "statement_sha256": statement_sha256.hex(),
        "info": context(ENVELOPE_LABEL, transport.key_id, statement_sha256).hex(),
        "private_key": private_key.hex(),
        "ciphertext": message.ciphertext.hex(),
        "envelope": envelope.hex(),
        "refused": refused_envelopes(message, private_key, transport, statement_sha256),
    }


def refused_envelopes(
    message: TransportEnvelope, private_key: bytes, transport: TransportPublicKey, statement_sha256: bytes
) -> list[dict[str, str]]:
    sealed, suite = message.ciphertext, message.suite
    foreign = seal_to_transport(
        private_key, transport_public_key=transport, statement_sha256=digest("another statement")
    )
    other_key = TransportEnvelope(suite=suite, transport_key_id=digest("another key"), ciphertext=sealed)
    other_suite = TransportEnvelope(
        suite=3 - suite,
        transport_key_id=message.transport_key_id,
        ciphertext=sealed,  # type: ignore[arg-type]
    )
    flipped = TransportEnvelope(
        suite=suite,
        transport_key_id=message.transport_key_id,
        ciphertext=sealed[:-1] + bytes([sealed[-1] ^ 1]),
    )
    return [
        {"why": why, "reason": reason, "envelope": envelope.hex(), "statement_sha256": statement_sha256.hex()}
        for why, reason, envelope in (
            ("made for another statement", "ENVELOPE", foreign),
            ("a bit of the tag", "ENVELOPE", flipped.SerializeToString()),
            ("the other suite", "ENVELOPE", other_suite.SerializeToString()),
            ("a field that is not known", "ENVELOPE", message.SerializeToString() + b"\x7a\x00"),
            ("another transport key", "UNKNOWN_TRANSPORT_KEY", other_key.SerializeToString()),
        )
    ]


def archived(statement: Statement) -> LoggedEvent:
    event = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_KEY_ARCHIVED,
        time_us=NOW * 1_000_000,
        enrollment_id=statement.enrollment_id,
        statement_sha256=statement.sha256,
        signing_spki_sha256=statement.signing_spki_sha256,
        encryption_spki_sha256=statement.encryption_spki_sha256,
        storage_key_id=digest("storage key"),
    )
    details = AuditDetails(
        caller=str(statement.caller),
        common_name=statement.common_name,
        email=statement.email,
        profile=statement.profile,
        match_proof=match_proof_name(statement.encryption_key_type),
    )
    return new_event(event, details)


async def make_receipt(examples: list[Example], key: Any) -> dict[str, Any]:
    """The receipt of the first example, between the entries of the others."""
    log = Log(origin=ORIGIN, signer=NoteSigner.from_private_key(ORIGIN, key), clock=ManualClock())
    store = MemoryStore(tables=TABLES, finisher=log.finisher)
    await log.open(store)
    events = [archived(example.statement) for example in (*examples[1:5], examples[0], *examples[5:])]
    places = await store.update(lambda txn: [log.append(txn, event) for event in events])
    head, logged, index = await log.checkpoint(), events[4], places[4].index
    proof = log.inclusion_proof(index, head)
    receipt = format_proof(
        extra=logged.SerializeToString(), index=index, proof=proof, checkpoint=head.note
    ).decode()
    await log.close()
    await store.close()
    certificate = identity_certificate("drm/transport", key=key)
    return {
        "origin": ORIGIN,
        "transport_public_key": encode_spki(key.public_key()).hex(),
        "transport_certificate": encode_certificate(certificate).hex(),
        "trust_anchor": encode_certificate(internal_ca().certificate).hex(),
        "valid_at": NOW,
        "receipt": receipt,
        "leaf": logged.leaf.hex(),
        "leaf_hash": leaf_hash(logged.leaf).hex(),
        "salt": logged.salt.hex(),
        "details": logged.details.hex(),
        "index": index,
        "inclusion_proof": [sibling.hex() for sibling in proof],
        "checkpoint": head.note.decode(),
        "tree_size": head.size,
        "root": head.root.hex(),
    }


def main() -> None:
    examples = [Example.make(*types) for types in KEY_TYPES]
    transport_keys: list[Any] = [generate(KeyType.EC_P256), generate(KeyType.RSA_3072)]
    vectors = {
        "contexts": make_contexts(),
        "statements": make_statements(examples),
        "envelopes": make_envelopes(examples[0], transport_keys),
        "receipts": {"receipts": [asyncio.run(make_receipt(examples, key)) for key in transport_keys]},
    }
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors.items():
        with (FOLDER / f"{name}.json").open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
