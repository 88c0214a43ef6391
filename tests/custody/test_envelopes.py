"""Guards P5: an envelope opens for one transport key and one statement, and failure tells nothing else."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.contexts import context
from keyark.custody.envelopes import (
    ENVELOPE_LABEL,
    MAX_ENVELOPE_SIZE,
    EnvelopeError,
    EnvelopeKeys,
    TransportKey,
    TransportPublicKey,
    UnknownTransportKeyError,
    seal_to_transport,
)
from keyark.errors import InvalidInputError
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.keys.pkcs8 import MAX_PRIVATE_KEY_SIZE
from keyark.keys.spki import SpkiNotCanonicalError
from keyark.v1.statement_pb2 import EnvelopeSuite, TransportEnvelope
from tests.support.keys.pki import private_key, spki

STATEMENT = sha256(b"statement").digest()
PLAINTEXT = b"a private key, PKCS#8 DER" * 4
TRANSPORT_TYPES = (KeyType.EC_P256, KeyType.RSA_3072)
each_type = pytest.mark.parametrize("key_type", TRANSPORT_TYPES)


def transport_key(key_type, number=0):
    return TransportKey(private_key(key_type, number))


def sealed(key_type, plaintext=PLAINTEXT, number=0):
    public_key = TransportPublicKey.from_spki(spki(key_type, number))
    return seal_to_transport(plaintext, transport_public_key=public_key, statement_sha256=STATEMENT)


def refusal(key_type, envelope, statement=STATEMENT):
    with pytest.raises(EnvelopeError) as caught:
        transport_key(key_type).open(envelope, statement)
    return caught.value


@each_type
def test_what_was_sealed_opens(key_type):
    assert transport_key(key_type).open(sealed(key_type), STATEMENT) == PLAINTEXT


@each_type
def test_the_key_id_is_the_hash_of_the_public_key(key_type):
    expected = sha256(spki(key_type)).digest()
    assert transport_key(key_type).key_id == expected
    assert TransportPublicKey.from_spki(spki(key_type)).key_id == expected
    assert TransportEnvelope.FromString(sealed(key_type)).transport_key_id == expected


@each_type
def test_no_two_envelopes_are_alike(key_type):
    assert sealed(key_type) != sealed(key_type)


@each_type
@pytest.mark.parametrize("statement", [sha256(b"another").digest(), STATEMENT[:-1], STATEMENT + b"\0", b""])
def test_another_statement_does_not_open_it(key_type, statement):
    refusal(key_type, sealed(key_type), statement)


@each_type
def test_an_envelope_for_another_transport_key_is_told_apart(key_type):
    with pytest.raises(UnknownTransportKeyError) as caught:
        transport_key(key_type).open(sealed(key_type, number=1), STATEMENT)
    assert caught.value.metadata == {"transport_key_id": sha256(spki(key_type, 1)).hexdigest()}


@each_type
def test_an_envelope_relabelled_to_another_transport_key_does_not_open(key_type):
    message = TransportEnvelope.FromString(sealed(key_type, number=1))
    message.transport_key_id = transport_key(key_type).key_id
    refusal(key_type, message.SerializeToString())


@each_type
@pytest.mark.parametrize("suite", [0, 1, 2, 3, 99])
def test_only_the_suite_of_the_key_opens(key_type, suite):
    message = TransportEnvelope.FromString(sealed(key_type))
    if message.suite == suite:
        return
    message.suite = suite
    refusal(key_type, message.SerializeToString())


@each_type
@pytest.mark.parametrize("key_id", [b"", b"\0" * 31, b"\0" * 33])
def test_a_malformed_key_id_is_a_malformed_envelope(key_type, key_id):
    message = TransportEnvelope.FromString(sealed(key_type))
    message.transport_key_id = key_id
    refusal(key_type, message.SerializeToString())


@each_type
def test_unknown_fields_are_refused(key_type):
    refusal(key_type, sealed(key_type) + b"\x20\x01")
    refusal(key_type, b"\x22\x00" + sealed(key_type))


@each_type
def test_a_field_given_twice_is_refused(key_type):
    envelope = sealed(key_type)
    suite = TransportEnvelope.FromString(envelope).suite
    refusal(key_type, bytes((0x08, 0, 0x08, suite)) + envelope[2:])


@each_type
@pytest.mark.parametrize("junk", [b"", b"\x08", b"\xff" * 64, b"\x00" * MAX_ENVELOPE_SIZE])
def test_what_is_no_envelope_is_refused(key_type, junk):
    refusal(key_type, junk)


@each_type
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bit_flip_is_noticed(key_type, data):
    envelope = bytearray(sealed(key_type))
    bit = data.draw(st.integers(0, len(envelope) * 8 - 1))
    envelope[bit // 8] ^= 1 << bit % 8
    with pytest.raises((EnvelopeError, UnknownTransportKeyError)):
        transport_key(key_type).open(bytes(envelope), STATEMENT)


@each_type
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bit_flip_in_the_ciphertext_gives_the_one_error(key_type, data):
    message = TransportEnvelope.FromString(sealed(key_type))
    ciphertext = bytearray(message.ciphertext)
    bit = data.draw(st.integers(0, len(ciphertext) * 8 - 1))
    ciphertext[bit // 8] ^= 1 << bit % 8
    message.ciphertext = bytes(ciphertext)
    refusal(key_type, message.SerializeToString())


@each_type
def test_truncated_ciphertexts_are_refused(key_type):
    message = TransportEnvelope.FromString(sealed(key_type))
    whole = message.ciphertext
    wrapped = 65 if key_type is KeyType.EC_P256 else 384
    for size in (0, 1, wrapped - 1, wrapped, wrapped + 11, wrapped + 12, wrapped + 27, len(whole) - 1):
        message.ciphertext = whole[:size]
        refusal(key_type, message.SerializeToString())
    message.ciphertext = whole + b"\0"
    refusal(key_type, message.SerializeToString())


@each_type
def test_all_failures_look_the_same(key_type):
    envelope = sealed(key_type)
    altered = TransportEnvelope.FromString(envelope)
    altered.ciphertext = altered.ciphertext[:-1] + bytes([altered.ciphertext[-1] ^ 1])
    other_suite = TransportEnvelope.FromString(envelope)
    other_suite.suite = EnvelopeSuite.ENVELOPE_SUITE_UNSPECIFIED
    errors = [
        refusal(key_type, b"\xff"),
        refusal(key_type, envelope, sha256(b"another").digest()),
        refusal(key_type, altered.SerializeToString()),
        refusal(key_type, other_suite.SerializeToString()),
        refusal(key_type, bytes(MAX_ENVELOPE_SIZE + 1)),
    ]
    assert len({(e.reason, e.message, tuple(e.metadata)) for e in errors}) == 1
    assert all(e.__cause__ is None for e in errors)
    assert all(e.__context__ is None or e.__suppress_context__ for e in errors)


@each_type
def test_the_largest_private_key_fits_and_a_larger_one_does_not(key_type):
    largest = bytes(MAX_PRIVATE_KEY_SIZE)
    assert transport_key(key_type).open(sealed(key_type, largest), STATEMENT) == largest
    with pytest.raises(InvalidInputError, match=f"more than {MAX_PRIVATE_KEY_SIZE} bytes") as caught:
        sealed(key_type, largest + b"\0")
    assert caught.value.field == "private_key"


def test_a_larger_key_that_others_sealed_is_refused():
    def envelope(size):
        key_id = transport_key(KeyType.EC_P256).key_id
        info = context(ENVELOPE_LABEL, key_id, STATEMENT)
        suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        ciphertext = suite.encrypt(bytes(size), private_key(KeyType.EC_P256).public_key(), info)
        number = EnvelopeSuite.ENVELOPE_SUITE_HPKE_P256_SHA256_AES256GCM
        message = TransportEnvelope(suite=number, transport_key_id=key_id, ciphertext=ciphertext)
        return message.SerializeToString()

    largest = transport_key(KeyType.EC_P256).open(envelope(MAX_PRIVATE_KEY_SIZE), STATEMENT)
    assert len(largest) == MAX_PRIVATE_KEY_SIZE
    refusal(KeyType.EC_P256, envelope(MAX_PRIVATE_KEY_SIZE + 1))


def test_an_rsa_envelope_with_a_secret_of_another_size_is_refused():
    """A short secret would be an HKDF key of the sender's choice of strength."""

    def envelope(secret):
        key = private_key(KeyType.RSA_3072).public_key()
        key_id = transport_key(KeyType.RSA_3072).key_id
        info = context(ENVELOPE_LABEL, key_id, STATEMENT)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        cipher = AESGCM(HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret))
        ciphertext = key.encrypt(secret, oaep) + bytes(12) + cipher.encrypt(bytes(12), PLAINTEXT, info)
        suite = EnvelopeSuite.ENVELOPE_SUITE_RSA_OAEP_SHA256_AES256GCM
        message = TransportEnvelope(suite=suite, transport_key_id=key_id, ciphertext=ciphertext)
        return message.SerializeToString()

    assert transport_key(KeyType.RSA_3072).open(envelope(bytes(32)), STATEMENT) == PLAINTEXT
    for size in (0, 16, 31, 33):
        refusal(KeyType.RSA_3072, envelope(bytes(size)))


def test_of_several_transport_keys_the_named_one_opens():
    keys = EnvelopeKeys([private_key(KeyType.EC_P256), private_key(KeyType.RSA_3072)])
    for key_type in TRANSPORT_TYPES:
        assert keys.open(sealed(key_type), STATEMENT) == PLAINTEXT
        with pytest.raises(EnvelopeError):
            keys.open(sealed(key_type), sha256(b"another").digest())
        with pytest.raises(UnknownTransportKeyError) as caught:
            keys.open(sealed(key_type, number=1), STATEMENT)
        assert caught.value.metadata == {"transport_key_id": sha256(spki(key_type, 1)).hexdigest()}
    with pytest.raises(EnvelopeError):
        keys.open(b"\xff", STATEMENT)
    with pytest.raises(UnknownTransportKeyError):
        EnvelopeKeys([]).open(sealed(KeyType.EC_P256), STATEMENT)


@pytest.mark.parametrize("key_type", [KeyType.EC_P384, KeyType.RSA_2048, KeyType.X25519, KeyType.ML_KEM_768])
def test_other_keys_are_no_transport_keys(key_type):
    with pytest.raises(UnsupportedKeyError):
        TransportKey(private_key(key_type))
    with pytest.raises(UnsupportedKeyError):
        TransportPublicKey.from_spki(spki(key_type))


def test_a_public_key_that_is_none_is_refused():
    with pytest.raises(SpkiNotCanonicalError):
        TransportPublicKey.from_spki(spki(KeyType.EC_P256)[:-64] + bytes(64))


def test_public_keys_are_of_the_library():
    assert isinstance(
        TransportPublicKey.from_spki(spki(KeyType.EC_P256)).public_key, ec.EllipticCurvePublicKey
    )
    assert isinstance(TransportPublicKey.from_spki(spki(KeyType.RSA_3072)).public_key, rsa.RSAPublicKey)
