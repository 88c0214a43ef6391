"""Makes docs/vectors/calls.json, once, from the statements of docs/vectors/statements.json.

Run from the root of the repository as ``python -m tests.vectors.make_calls``. It overwrites nothing. Bytes are
hexadecimal; all keys are test keys.
"""

from __future__ import annotations

import json
from typing import Any

from keyark.contexts import context
from keyark.keys.signatures import sign_message
from keyark.statements.calls import LABEL, SignedCall
from keyark.v1.statement_pb2 import CallStatement
from keyark.x509.certificates import Validity, encode_certificate
from tests.support.keys.pki import NOW, internal_ca, root_ca
from tests.support.running.calls import call_signer
from tests.vectors.make_protocol import FOLDER, pkcs8

SIGNER = call_signer()


def described(call: SignedCall) -> dict[str, Any]:
    return {
        "statement": call.statement.hex(),
        "signature": call.signature.hex(),
        "certificate": call.certificate.hex(),
    }


def changed(call: SignedCall, **fields: Any) -> SignedCall:
    """Another call, signed by the same client."""
    message = CallStatement.FromString(call.statement)
    message.statement_sha256[:] = fields.pop("statement_sha256", list(message.statement_sha256))
    for name, value in fields.items():
        setattr(message, name, value)
    return resigned(call, message.SerializeToString(deterministic=True))


def resigned(call: SignedCall, raw: bytes) -> SignedCall:
    signature = sign_message(SIGNER.private_key, context(LABEL, raw))
    return call._replace(statement=raw, signature=signature)


def refused(call: SignedCall, statements: list[bytes]) -> list[dict[str, Any]]:
    raw = call.statement
    hashes = list(CallStatement.FromString(raw).statement_sha256)
    unsigned = CallStatement.FromString(raw)
    del unsigned.statement_sha256[1:]
    ended = call_signer(validity=Validity(NOW - 7200, NOW - 3600)).sign(statements, time=NOW)
    own = sign_message(SIGNER.private_key, raw)
    cases = [
        ("over the statement without its context", "CALL_SIGNATURE", call._replace(signature=own)),
        ("a hash taken out", "CALL_SIGNATURE", call._replace(statement=unsigned.SerializeToString())),
        ("another caller", "CALL_SIGNATURE", changed(call, caller="spiffe://example.org/client/bob")),
        ("another trust domain", "CALL_MISMATCH", changed(call, trust_domain="example.net")),
        ("signed 16 minutes ago", "CALL_TIME", changed(call, time=NOW - 960)),
        ("signed in 6 minutes", "CALL_TIME", changed(call, time=NOW + 360)),
        ("a certificate that ended before", "CERTIFICATE_EXPIRED", ended),
        ("another CA", "CERTIFICATE_CHAIN", call_signer(authority=root_ca()).sign(statements, time=NOW)),
        ("an officer", "UNAUTHENTICATED", call_signer("officer/officer").sign(statements, time=NOW)),
        ("version 2", "INVALID_INPUT", changed(call, version=2)),
        ("no time", "INVALID_INPUT", changed(call, time=0)),
        ("no statement", "INVALID_INPUT", changed(call, statement_sha256=[])),
        ("a short hash", "INVALID_INPUT", changed(call, statement_sha256=[hashes[0][:31]])),
        ("257 statements", "INVALID_INPUT", changed(call, statement_sha256=hashes[:1] * 257)),
        ("a field that is not known", "INVALID_INPUT", resigned(call, raw + b"\x7a\x00")),
        ("fields out of order", "INVALID_INPUT", resigned(call, raw[2:] + raw[:2])),
        ("no message", "INVALID_INPUT", resigned(call, b"\xff")),
    ]
    return [{"why": why, "reason": reason, **described(case)} for why, reason, case in cases]


def main() -> None:
    with (FOLDER / "statements.json").open(encoding="utf-8") as file:
        statements = [bytes.fromhex(v["statement"]) for v in json.load(file)["statements"]]
    call = SIGNER.sign(statements, time=NOW)
    message = CallStatement.FromString(call.statement)
    content = {
        "fields": {
            "version": 1,
            "trust_domain": message.trust_domain,
            "caller": message.caller,
            "time": message.time,
            "statement_sha256": [digest.hex() for digest in message.statement_sha256],
        },
        **described(call),
        "signed": context(LABEL, call.statement).hex(),
        "private_key": pkcs8(SIGNER.private_key),
        "trust_anchor": encode_certificate(internal_ca().certificate).hex(),
        "valid_at": NOW,
        "refused": refused(call, statements),
    }
    with (FOLDER / "calls.json").open("x", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
