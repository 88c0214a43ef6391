"""P8: keys whose private halves reveal one another are one key."""

from __future__ import annotations

from itertools import permutations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.hashes import SHA512, Hash

from keyark.errors import InvalidInputError
from keyark.keys.key_types import KeyType
from keyark.keys.related_keys import ed25519_to_x25519, related_key_ids
from keyark.keys.spki import encode_key_bytes, encode_spki, key_bytes, key_id
from keyark.keys.weak_keys import check_public_key
from tests.support.keys.pki import private_key, spki, statement_bytes
from tests.support.keys.related import negated_ec, x25519_twin

EC_TYPES = (KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_P521)


@pytest.mark.parametrize("key_type", EC_TYPES)
def test_the_negated_scalar_is_a_relative(key_type: KeyType) -> None:
    key = private_key(key_type)
    negated = encode_spki(negated_ec(key).public_key())
    assert negated != spki(key_type)
    assert related_key_ids(spki(key_type)) == (key_id(spki(key_type)), key_id(negated))
    assert set(related_key_ids(negated)) == set(related_key_ids(spki(key_type)))


def test_the_x25519_key_of_an_ed25519_scalar_is_a_relative() -> None:
    """RFC 8032 §5.1.5 makes the scalar; X25519 clamps it the same way."""
    signing = private_key(KeyType.ED25519)
    twin = encode_spki(x25519_twin(signing).public_key())
    family = related_key_ids(spki(KeyType.ED25519))
    assert len(set(family)) == 3
    assert key_id(twin) in family
    assert set(related_key_ids(twin)) == set(family)


def test_the_negated_ed25519_point_is_a_relative() -> None:
    point = bytearray(key_bytes(spki(KeyType.ED25519)))
    point[31] ^= 0x80
    negated = encode_key_bytes(KeyType.ED25519, bytes(point))
    check_public_key(negated, ed25519.Ed25519PublicKey.from_public_bytes(bytes(point)))
    assert set(related_key_ids(negated)) == set(related_key_ids(spki(KeyType.ED25519)))


def test_the_map_follows_rfc_7748() -> None:
    """The base point of Ed25519, y = 4/5, is that of X25519, u = 9."""
    p = 2**255 - 19
    y = 4 * pow(5, -1, p) % p
    assert ed25519_to_x25519(y.to_bytes(32, "little")) == (9).to_bytes(32, "little")


@pytest.mark.parametrize(
    "key_type", sorted(set(KeyType) - {*EC_TYPES, KeyType.ED25519, KeyType.X25519}, key=str)
)
def test_other_keys_have_no_relatives(key_type: KeyType) -> None:
    assert related_key_ids(spki(key_type)) == (key_id(spki(key_type)),)


def test_keys_of_other_pairs_are_strangers() -> None:
    families = [set(related_key_ids(spki(t, n))) for t in KeyType for n in range(2)]
    assert not any(one & other for one, other in permutations(families, 2))


def test_a_statement_with_related_keys_is_refused() -> None:
    ed = private_key(KeyType.ED25519)
    pairs = [
        (spki(KeyType.EC_P256), encode_spki(negated_ec(private_key(KeyType.EC_P256)).public_key())),
        (spki(KeyType.ED25519), encode_spki(x25519_twin(ed).public_key())),
    ]
    for signing, encryption in pairs:
        with pytest.raises(InvalidInputError, match="reveals") as caught:
            statement_bytes(signing_spki=signing, encryption_spki=encryption)
        assert caught.value.field == "encryption_spki"


def test_what_the_twins_are_made_of() -> None:
    digest = Hash(SHA512())
    digest.update(private_key(KeyType.ED25519).private_bytes_raw())
    assert x25519_twin(private_key(KeyType.ED25519)).private_bytes_raw() == digest.finalize()[:32]
    assert isinstance(negated_ec(private_key(KeyType.EC_P256)), ec.EllipticCurvePrivateKey)
    assert isinstance(x25519_twin(private_key(KeyType.ED25519)), x25519.X25519PrivateKey)
