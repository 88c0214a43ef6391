"""Guards the enrollment statement: one encoding, every field checked, and proof of possession (P5, P8)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, UnsupportedKeyError
from keyark.keys.signatures import sign_message
from keyark.keys.spki import SpkiNotCanonicalError
from keyark.statements.enrollment import (
    STATEMENT_VERSION,
    StatementSignatureError,
    build_statement,
    enrollment_id,
    is_uuid7,
    new_request_id,
    parse_statement,
    sign_statement,
    verify_statement,
)
from keyark.v1.statement_pb2 import EnrollmentStatement
from tests.support.keys.pki import CALLER, REQUEST_ID, private_key, signed_statement, spki, statement_bytes


def changed(**fields) -> bytes:
    """A canonical encoding whose fields are replaced; None leaves one out."""
    message = EnrollmentStatement.FromString(statement_bytes())
    for name, value in fields.items():
        if value is None:
            message.ClearField(name)
        else:
            setattr(message, name, value)
    return message.SerializeToString(deterministic=True)


def test_a_statement_is_read_back_as_it_was_built():
    raw = statement_bytes()
    statement = parse_statement(raw)
    assert statement.raw == raw
    assert statement.caller == CALLER
    assert statement.trust_domain == "example.org"
    assert statement.request_id == REQUEST_ID
    assert (statement.profile, statement.common_name, statement.email) == (
        "person",
        "Alice Example",
        "alice@example.org",
    )
    assert statement.signing_spki == spki(KeyType.EC_P256)
    assert statement.encryption_spki == spki(KeyType.EC_P256, 1)


@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
def test_every_signing_key_type_proves_possession(key_type):
    raw, signature = signed_statement(signing=key_type)
    statement = parse_statement(raw)
    assert statement.signing_key_type is key_type
    verify_statement(statement, signature)


@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_every_encryption_key_type_is_read(key_type):
    assert parse_statement(statement_bytes(encryption=key_type)).encryption_key_type is key_type


@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
def test_a_changed_signature_is_refused(key_type):
    raw, signature = signed_statement(signing=key_type)
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(raw), signature[:-1] + bytes((signature[-1] ^ 1,)))


@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
@pytest.mark.parametrize("signature", [b"", b"\x00", bytes(64), bytes(9000)])
def test_what_is_no_signature_is_refused(key_type, signature):
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(statement_bytes(signing=key_type)), signature)


@pytest.mark.parametrize(
    "other",
    [
        {"common_name": "Mallory"},
        {"email": "mallory@example.org"},
        {"caller": SpiffeId("example.org", "client/mallory")},
        {"profile": "other"},
        {"request_id": REQUEST_ID[:-1] + b"\x00"},
        {"encryption_spki": spki(KeyType.EC_P256, 2)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_signature_is_for_one_statement_only(other):
    _, signature = signed_statement()
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(statement_bytes(**other)), signature)


def test_the_encryption_key_cannot_sign_in_place_of_the_signing_key():
    raw = statement_bytes()
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(raw), sign_statement(raw, private_key(KeyType.EC_P256, 1)))


@pytest.mark.parametrize(
    "message", [lambda raw: raw, lambda raw: context("keyark/v1/other", raw), lambda raw: b"keyark/v1" + raw]
)
def test_a_signature_under_another_label_is_refused(message):
    raw = statement_bytes()
    signature = sign_message(private_key(KeyType.EC_P256), message(raw))
    with pytest.raises(StatementSignatureError):
        verify_statement(parse_statement(raw), signature)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", None),
        ("version", 2),
        ("trust_domain", None),
        ("trust_domain", "example.com"),
        ("trust_domain", "Example.org"),
        ("caller", None),
        ("caller", "spiffe://example.org/officer/olga"),
        ("caller", "spiffe://example.org/rm"),
        ("caller", "alice"),
        ("request_id", None),
        ("request_id", REQUEST_ID[:15]),
        ("request_id", REQUEST_ID + b"\x00"),
        ("request_id", REQUEST_ID[:6] + b"\x43" + REQUEST_ID[7:]),
        ("request_id", REQUEST_ID[:8] + b"\xc3" + REQUEST_ID[9:]),
        ("profile", None),
        ("profile", "Person"),
        ("profile", "a/b"),
        ("profile", "x" * 65),
        ("profile", "person\n"),
        ("common_name", None),
        ("common_name", "x" * 65),
        ("common_name", "Al\u202eice"),
        ("email", None),
        ("email", "alice"),
        ("email", "alice@exämple.org"),
        ("signing_spki", None),
        ("signing_spki", b"\x30\x00"),
        ("encryption_spki", b"\x30\x00"),
        ("encryption_spki", bytes(91)),
    ],
)
def test_each_field_is_checked_and_named(field, value):
    with pytest.raises(InvalidInputError) as caught:
        parse_statement(changed(**{field: value}))
    assert caught.value.field == field


@pytest.mark.parametrize("field", list(EnrollmentStatement.DESCRIPTOR.fields), ids=lambda field: field.name)
def test_a_field_that_is_added_is_checked_and_read(field):
    """Whoever adds one to the message says what may stand in it, and what a Statement has of it."""
    renewal = {"renews": b"\x01", "renewal_signature": b"\x01"}
    absurd = {field.CPPTYPE_STRING: "\x00" * 9000, field.CPPTYPE_UINT32: 2**32 - 1}[field.cpp_type]
    if field.type == field.TYPE_BYTES:
        absurd = absurd.encode()
    with pytest.raises(InvalidInputError) as caught:
        parse_statement(changed(**{**renewal, field.name: absurd}))
    assert caught.value.field == field.name
    message = EnrollmentStatement.FromString(changed(**renewal))
    statement = parse_statement(message.SerializeToString(deterministic=True))
    read = {"version": STATEMENT_VERSION, "caller": str(statement.caller)}
    assert read.get(field.name) or getattr(statement, field.name) == getattr(message, field.name) != b""


def test_a_statement_may_ask_for_a_signing_certificate_alone():
    statement = parse_statement(changed(encryption_spki=None))
    assert (statement.encryption_key_type, statement.encryption_spki_sha256) == (None, b"")
    with pytest.raises(InvalidInputError) as caught:
        _ = statement.archived_key_type
    assert caught.value.field == "encryption_spki"


@pytest.mark.parametrize("key_type", [KeyType.X25519, KeyType.ML_KEM_768, KeyType.ML_KEM_1024])
def test_keys_that_cannot_sign_are_no_signing_keys(key_type):
    with pytest.raises(UnsupportedKeyError) as caught:
        parse_statement(changed(signing_spki=spki(key_type)))
    assert caught.value.field == "signing_spki"


@pytest.mark.parametrize(
    "key_type", [KeyType.ED25519, KeyType.ML_DSA_44, KeyType.ML_DSA_65, KeyType.ML_DSA_87]
)
def test_keys_that_cannot_encrypt_are_no_encryption_keys(key_type):
    with pytest.raises(UnsupportedKeyError) as caught:
        parse_statement(changed(encryption_spki=spki(key_type)))
    assert caught.value.field == "encryption_spki"


def test_one_key_in_both_roles_is_refused():
    with pytest.raises(InvalidInputError, match="two separate key pairs"):
        parse_statement(changed(encryption_spki=spki(KeyType.EC_P256)))


def test_an_invalid_encryption_key_is_refused():
    broken = bytearray(spki(KeyType.EC_P256, 1))
    broken[-1] ^= 1
    with pytest.raises(SpkiNotCanonicalError) as caught:
        parse_statement(changed(encryption_spki=bytes(broken)))
    assert caught.value.field == "encryption_spki"


def _reordered(raw: bytes) -> bytes:
    return raw[2:] + raw[:2]


@pytest.mark.parametrize(
    "recode",
    [
        lambda raw: raw + b"\xfa\x01\x01x",  # an unknown field
        lambda raw: raw + b"\x08\x01",  # the version a second time
        lambda raw: raw + b"\x2a\x00",  # an empty profile after the profile
        lambda raw: raw.replace(b"\x08\x01", b"\x08\x81\x00", 1),  # a varint longer than it needs to be
        _reordered,
        lambda raw: b"\x2a\x06person" + raw,  # a field twice, the same value
    ],
    ids=["unknown", "twice", "empty", "varint", "order", "repeated"],
)
def test_other_encodings_are_refused(recode):
    with pytest.raises(InvalidInputError):
        parse_statement(recode(statement_bytes()))


def test_statements_have_a_limit():
    with pytest.raises(InvalidInputError, match="16384"):
        parse_statement(bytes(16385))


@pytest.mark.parametrize(
    ("field", "value"), [("common_name", "\ud800"), ("email", "\ud800@example.org"), ("profile", "\ud800")]
)
def test_building_refuses_what_no_message_takes(field, value):
    with pytest.raises(InvalidInputError) as caught:
        statement_bytes(**{field: value})
    assert caught.value.field == field


def test_building_refuses_what_parsing_refuses():
    with pytest.raises(InvalidInputError) as caught:
        build_statement(
            caller=SpiffeId("example.org", "agent/ann"),
            request_id=REQUEST_ID,
            profile="person",
            common_name="Alice",
            email="alice@example.org",
            signing_spki=spki(KeyType.EC_P256),
            encryption_spki=spki(KeyType.EC_P256, 1),
        )
    assert caught.value.field == "caller"


def test_the_enrollment_id_sorts_by_time_and_belongs_to_the_caller():
    statement = parse_statement(statement_bytes())
    assert len(statement.enrollment_id) == 32
    assert statement.enrollment_id[:16] == REQUEST_ID
    assert statement.enrollment_id == enrollment_id(REQUEST_ID, CALLER)
    assert statement.enrollment_id != enrollment_id(REQUEST_ID, SpiffeId("example.org", "client/other"))


def test_request_ids_are_ordered_uuids():
    ids = [new_request_id() for _ in range(200)]
    assert len(set(ids)) == 200
    assert all(is_uuid7(value) for value in ids)
    assert [value[:6] for value in ids] == sorted(value[:6] for value in ids)


@given(st.binary(min_size=16, max_size=16))
def test_only_version_7_with_the_rfc_variant_is_a_request_id(value):
    text = value.hex()
    assert is_uuid7(value) == bool(re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", text))


@given(st.binary(max_size=600))
def test_random_bytes_raise_typed_errors(data):
    with pytest.raises(KeyarkError):
        parse_statement(data)


@given(st.data())
def test_mutated_statements_are_canonical_or_raise_typed_errors(data):
    raw = bytearray(statement_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                raw[position] = data.draw(st.integers(0, 255))
            case 1:
                del raw[position]
            case _:
                raw.insert(position, data.draw(st.integers(0, 255)))
    try:
        statement = parse_statement(bytes(raw))
    except KeyarkError:
        return
    again = EnrollmentStatement.FromString(statement.raw)
    assert again.SerializeToString(deterministic=True) == bytes(raw)


@given(st.binary(max_size=200))
def test_random_signatures_raise_typed_errors(signature):
    for key_type in (KeyType.RSA_2048, KeyType.EC_P521, KeyType.ED25519, KeyType.ML_DSA_44):
        with pytest.raises(StatementSignatureError):
            verify_statement(parse_statement(statement_bytes(signing=key_type)), signature)
