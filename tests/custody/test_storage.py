"""Guards that an archived key opens with its storage key and as its leaf only, and the serialization of both halves."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.contexts import context
from keyark.custody.storage import (
    PRIVATE_SIZE,
    PUBLIC_SIZE,
    STORAGE_LABEL,
    HybridPublicKey,
    SealError,
    StoragePrivateKey,
    StoragePublicKey,
)
from keyark.errors import InvalidInputError
from keyark.records.v1.drm_pb2 import SealedKey, SealSuite

PRIVATE_KEY = StoragePrivateKey.generate()
PUBLIC_KEY = StoragePublicKey.from_bytes(PRIVATE_KEY.public_key.to_bytes())
LEAF = b"the KEY_ARCHIVED leaf"
SECRET = b"a private key" * 10


def test_what_was_sealed_opens():
    sealed = PUBLIC_KEY.seal(SECRET, LEAF)
    assert sealed.suite == SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM
    assert sealed.storage_key_id == sha256(PUBLIC_KEY.to_bytes()).digest() == PUBLIC_KEY.key_id
    assert PRIVATE_KEY.open(sealed, LEAF) == SECRET


def test_no_two_seals_are_alike():
    assert PUBLIC_KEY.seal(SECRET, LEAF).ciphertext != PUBLIC_KEY.seal(SECRET, LEAF).ciphertext


def test_both_halves_survive_serialization():
    private, public = PRIVATE_KEY.to_bytes(), PRIVATE_KEY.public_key.to_bytes()
    assert (len(private), len(public)) == (PRIVATE_SIZE, PUBLIC_SIZE) == (96, 1216)
    loaded = StoragePrivateKey.from_bytes(private)
    assert loaded.to_bytes() == private
    assert loaded.public_key.to_bytes() == public
    assert HybridPublicKey.from_bytes(public).to_bytes() == public
    assert loaded.open(PUBLIC_KEY.seal(SECRET, LEAF), LEAF) == SECRET


def test_the_serialization_is_ml_kem_then_x25519():
    mlkem, x25519 = PRIVATE_KEY.parts
    assert PRIVATE_KEY.to_bytes() == mlkem.private_bytes_raw() + x25519.private_bytes_raw()
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    assert PRIVATE_KEY.public_key.to_bytes() == public


def test_the_context_is_label_key_id_and_hash_of_the_leaf():
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = context(STORAGE_LABEL, PUBLIC_KEY.key_id, sha256(LEAF).digest())
    key = MLKEM768X25519PrivateKey(*PRIVATE_KEY.parts)
    assert suite.decrypt(PUBLIC_KEY.seal(SECRET, LEAF).ciphertext, key, info) == SECRET


@pytest.mark.parametrize("leaf", [b"", LEAF[:-1], LEAF + b"\0", sha256(LEAF).digest()])
def test_another_leaf_does_not_open_it(leaf):
    with pytest.raises(SealError):
        PRIVATE_KEY.open(PUBLIC_KEY.seal(SECRET, LEAF), leaf)


def test_another_storage_key_does_not_open_it():
    sealed, other = PUBLIC_KEY.seal(SECRET, LEAF), StoragePrivateKey.generate()
    with pytest.raises(SealError, match="another storage key"):
        other.open(sealed, LEAF)
    sealed.storage_key_id = other.public_key.key_id
    with pytest.raises(SealError):
        other.open(sealed, LEAF)


def test_one_half_of_the_key_does_not_open_it():
    """The hybrid holds as long as one of its halves does; so both are needed."""
    other = StoragePrivateKey.generate()
    sealed = PUBLIC_KEY.seal(SECRET, LEAF)
    for mlkem, x25519 in (
        (PRIVATE_KEY.parts[0], other.parts[1]),
        (other.parts[0], PRIVATE_KEY.parts[1]),
    ):
        half = StoragePrivateKey(mlkem, x25519)
        info = context(STORAGE_LABEL, PUBLIC_KEY.key_id, sha256(LEAF).digest())
        with pytest.raises(SealError):
            half.decrypt(sealed.ciphertext, info)


@pytest.mark.parametrize("suite", [0, 2, 99])
def test_an_unknown_suite_is_refused(suite):
    sealed = PUBLIC_KEY.seal(SECRET, LEAF)
    sealed.suite = suite
    with pytest.raises(SealError, match="release"):
        PRIVATE_KEY.open(sealed, LEAF)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bit_flip_is_noticed(data):
    sealed = PUBLIC_KEY.seal(SECRET, LEAF)
    name = data.draw(st.sampled_from(["storage_key_id", "ciphertext"]))
    value = bytearray(getattr(sealed, name))
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    setattr(sealed, name, bytes(value))
    with pytest.raises(SealError):
        PRIVATE_KEY.open(sealed, LEAF)


@pytest.mark.parametrize("size", [0, 1, 32, 1119, 1120, 1135, -1])
def test_truncation_is_noticed(size):
    sealed = PUBLIC_KEY.seal(SECRET, LEAF)
    sealed.ciphertext = sealed.ciphertext[:size]
    with pytest.raises(SealError):
        PRIVATE_KEY.open(sealed, LEAF)


def test_an_empty_record_is_refused():
    with pytest.raises(SealError):
        PRIVATE_KEY.open(SealedKey(), LEAF)


@pytest.mark.parametrize("size", [0, PUBLIC_SIZE - 1, PUBLIC_SIZE + 1])
def test_public_keys_of_another_size_are_refused(size):
    with pytest.raises(InvalidInputError):
        HybridPublicKey.from_bytes(bytes(size))


@pytest.mark.parametrize("size", [0, PRIVATE_SIZE - 1, PRIVATE_SIZE + 1])
def test_private_keys_of_another_size_are_refused(size):
    with pytest.raises(InvalidInputError):
        StoragePrivateKey.from_bytes(bytes(size))


def test_an_ml_kem_key_out_of_range_is_refused():
    """FIPS 203 §7.2: coefficients below the modulus."""
    with pytest.raises(InvalidInputError):
        HybridPublicKey.from_bytes(b"\xff" * 1184 + PUBLIC_KEY.to_bytes()[1184:])


def test_an_x25519_point_of_small_order_seals_nothing():
    weak = HybridPublicKey.from_bytes(PUBLIC_KEY.to_bytes()[:1184] + bytes(32))
    with pytest.raises(InvalidInputError):
        weak.encrypt(SECRET, b"")
