"""Guards the statement's format: what an earlier release signed is read and verified as it was."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import (
    StatementSignatureError,
    build_statement,
    parse_statement,
    sign_statement,
    verify_statement,
)

PATH = Path(__file__).parent.parent / "vectors" / "pki" / "statements.json"
FROZEN = json.loads(PATH.read_text())
VECTORS = [
    {name: value if name.endswith("_type") else bytes.fromhex(value) for name, value in vector.items()}
    for vector in FROZEN["vectors"]
]


@pytest.fixture(params=VECTORS, ids=lambda vector: vector["signing_key_type"])
def vector(request):
    return request.param


def test_every_key_type_has_a_vector():
    assert {v["signing_key_type"] for v in VECTORS} == {t.value for t in SIGNING_KEY_TYPES}
    assert {v["encryption_key_type"] for v in VECTORS} == {t.value for t in ENCRYPTION_KEY_TYPES}


def test_what_is_read_and_derived_stays(vector):
    statement = parse_statement(vector["statement"])
    assert statement.caller == SpiffeId.parse(FROZEN["caller"])
    assert statement.common_name == "Zoë Ünal"
    assert statement.signing_key_type.value == vector["signing_key_type"]
    assert statement.encryption_key_type.value == vector["encryption_key_type"]
    for derived in ("enrollment_id", "signing_spki_sha256", "encryption_spki_sha256", "request_id"):
        assert getattr(statement, derived) == vector[derived]
    assert statement.sha256 == vector["statement_sha256"]


def test_signatures_still_verify(vector):
    verify_statement(parse_statement(vector["statement"]), vector["signature"])


def test_signatures_of_other_vectors_do_not(vector):
    other = VECTORS[VECTORS.index(vector) - 1]
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(vector["statement"]), other["signature"])


def test_the_same_request_gives_the_same_bytes(vector):
    key = load_der_private_key(vector["signing_private_key"], None)
    raw = build_statement(
        caller=SpiffeId.parse(FROZEN["caller"]),
        request_id=vector["request_id"],
        profile="person",
        common_name="Zoë Ünal",
        email="zoe@example.org",
        signing_spki=encode_spki(key.public_key()),
        encryption_spki=vector["encryption_spki"],
    ).raw
    assert raw == vector["statement"]
    verify_statement(parse_statement(raw), sign_statement(raw, key))
