"""P1, P8: keys that are known to be weak are refused by what they show themselves, and good ones never are."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.custody.matching import KeyMismatchError, prove_fit, prove_match
from keyark.errors import InvalidInputError
from keyark.keys.key_types import KeyType, generate
from keyark.keys.related_keys import related_key_ids
from keyark.keys.spki import (
    FIELD_25519,
    SpkiNotCanonicalError,
    encode_key_bytes,
    encode_spki,
    key_bytes,
    load_spki,
)
from keyark.keys.weak_keys import WeakKeyError, check_public_key
from keyark.statements.enrollment import build_statement, parse_statement
from tests.support.keys.crypto import pkcs8
from tests.support.keys.pki import CALLER, REQUEST_ID, private_key, spki
from tests.support.keys.weak_rsa import (
    ABOVE_ROOT,
    BELOW_ROOT,
    COFACTOR_OF_743,
    COMPOSITE,
    FAR,
    LARGE,
    NEAR,
    PRIME,
    ROCA,
    SMALL,
    SMALL_EXPONENT,
    TOO_NEAR,
    E,
    rsa_key,
)


def rsa_spki(n: int) -> bytes:
    return encode_spki(rsa.RSAPublicNumbers(E, n).public_key())


def check(der: bytes) -> None:
    check_public_key(der, load_spki(der), field="signing_spki")


def statement(signing_spki: bytes, encryption_spki: bytes) -> bytes:
    return build_statement(
        caller=CALLER,
        request_id=REQUEST_ID,
        profile="user",
        common_name="Alice Example",
        email="alice@example.org",
        signing_spki=signing_spki,
        encryption_spki=encryption_spki,
    ).raw


@pytest.mark.parametrize("key_type", KeyType)
def test_a_good_key_passes(key_type: KeyType) -> None:
    for number in range(3):
        check(spki(key_type, number))


@pytest.mark.parametrize(
    ("n", "why"),
    [
        (743 * COFACTOR_OF_743, "below 752"),
        (math.prod(ROCA), "ROCA"),
        (PRIME**2, "close together"),
        (PRIME * NEAR, "close together"),
    ],
    ids=["small factor", "ROCA", "square", "close factors"],
)
def test_a_modulus_that_shows_its_factors_is_refused_in_either_role(n: int, why: str) -> None:
    with pytest.raises(WeakKeyError, match=why) as caught:
        check(rsa_spki(n))
    assert (caught.value.reason, caught.value.field) == ("WEAK_KEY", "signing_spki")
    for keys in ((rsa_spki(n), spki(KeyType.EC_P256)), (spki(KeyType.EC_P256), rsa_spki(n))):
        with pytest.raises(WeakKeyError):
            statement(*keys)


def test_an_even_modulus_does_not_get_that_far() -> None:
    der = bytearray(spki(KeyType.RSA_2048))
    der[-6] ^= 1  # the last byte of the modulus
    with pytest.raises(InvalidInputError):
        check(bytes(der))


def test_two_rsa_keys_that_share_a_factor_are_refused_together() -> None:
    """P8: whoever recovers the one has the other."""
    with pytest.raises(WeakKeyError, match="shares a factor") as caught:
        statement(rsa_spki(PRIME * FAR), rsa_spki(PRIME * ABOVE_ROOT))
    assert caught.value.field == "encryption_spki"


# What only the private half shows


def fit(p: int, q: int) -> bytes:
    key = rsa_key(p, q)
    return prove_fit(pkcs8(key), encode_spki(key.public_key()))


def test_factors_within_the_bounds_are_fit() -> None:
    for number in range(2):
        key = private_key(KeyType.RSA_2048, number)
        assert prove_fit(pkcs8(key), spki(KeyType.RSA_2048, number)) == pkcs8(key)


def test_factors_of_unequal_size_are_refused() -> None:
    assert (SMALL * LARGE).bit_length() == 2048
    with pytest.raises(WeakKeyError, match="not between"):
        fit(SMALL, LARGE)


def test_a_factor_below_the_root_of_two_is_refused() -> None:
    """SP 800-56B §6.4.1.2.1; the modulus has its full length all the same."""
    assert (BELOW_ROOT * ABOVE_ROOT).bit_length() == 2048
    with pytest.raises(WeakKeyError, match="not between"):
        fit(BELOW_ROOT, ABOVE_ROOT)


def test_factors_whose_distance_is_too_small_are_refused_where_fermat_does_not_find_them() -> None:
    check(rsa_spki(PRIME * TOO_NEAR))
    with pytest.raises(WeakKeyError, match="close together"):
        fit(PRIME, TOO_NEAR)
    fit(PRIME, FAR)


def test_a_small_private_exponent_is_refused() -> None:
    """A large common factor of p − 1 and q − 1 makes it small modulo their lcm, whatever is added to it."""
    with pytest.raises(WeakKeyError, match="small private exponent"):
        fit(*SMALL_EXPONENT)


def test_a_key_that_was_archived_before_is_not_judged_again() -> None:
    """Recovery asks whether the key matches; a rule that came later takes nobody's key away."""
    key = rsa_key(PRIME, NEAR)
    assert prove_match(pkcs8(key), encode_spki(key.public_key())) == pkcs8(key)


# Composite factors


def test_composite_factors_are_a_mismatch_every_time() -> None:
    """Every equation holds and one random message in two decrypts, so no challenge may decide."""
    p, q = COMPOSITE, PRIME
    key = rsa_key(p, q)
    public = encode_spki(key.public_key())
    m = 3
    while pow(m, E * key.private_numbers().d, p) != m:
        m += 1  # such messages are easily found
    for _ in range(20):
        with pytest.raises(KeyMismatchError, match="not both prime"):
            prove_match(pkcs8(key), public)
    check(public)  # the public half shows nothing


@pytest.mark.parametrize("swapped", [False, True])
def test_either_factor_has_to_be_prime(swapped: bool) -> None:
    factors = (PRIME, COMPOSITE) if swapped else (COMPOSITE, PRIME)
    with pytest.raises(KeyMismatchError):
        fit(*factors)


# Curve25519


LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    FIELD_25519 - 1,
]
"""The u-coordinates of order 1, 2, 4 and 8, on the curve and on its twist (cr.yp.to/ecdh.html#validate)."""


@pytest.mark.parametrize("u", LOW_ORDER)
def test_x25519_points_of_low_order_are_refused(u: int) -> None:
    der = encode_key_bytes(KeyType.X25519, u.to_bytes(32, "little"))
    with pytest.raises(WeakKeyError):
        check(der)
    with pytest.raises(WeakKeyError):
        statement(spki(KeyType.EC_P256), der)


@pytest.mark.parametrize("u", [FIELD_25519, FIELD_25519 + 9, 2**255 - 1, 2**255 + 9])
def test_x25519_coordinates_that_are_not_reduced_are_refused(u: int) -> None:
    """They load, and mean the key of another encoding."""
    der = encode_key_bytes(KeyType.X25519, u.to_bytes(32, "little"))
    assert x25519.X25519PublicKey.from_public_bytes(key_bytes(der))
    with pytest.raises(SpkiNotCanonicalError):
        statement(spki(KeyType.EC_P256), der)


def test_the_other_encoding_of_an_honest_x25519_key_is_refused() -> None:
    point = bytearray(key_bytes(spki(KeyType.X25519)))
    point[31] |= 0x80
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(encode_key_bytes(KeyType.X25519, bytes(point)))


@pytest.mark.parametrize("y", [0, 1, FIELD_25519 - 1, 1 + 2**255])
def test_ed25519_points_of_low_order_are_refused(y: int) -> None:
    der = encode_key_bytes(KeyType.ED25519, y.to_bytes(32, "little"))
    with pytest.raises(InvalidInputError):
        check(der)


def test_ed25519_coordinates_that_are_not_reduced_are_refused() -> None:
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(encode_key_bytes(KeyType.ED25519, (FIELD_25519 + 1).to_bytes(32, "little")))


def test_points_of_mixed_order_are_refused() -> None:
    """P8: −(x, y) + (0, −1) is (x, −y): another key, whose signatures the same scalar makes half of the time."""
    y = int.from_bytes(key_bytes(spki(KeyType.ED25519)), "little") % 2**255
    der = encode_key_bytes(KeyType.ED25519, (FIELD_25519 - y).to_bytes(32, "little"))
    with pytest.raises(WeakKeyError, match="prime order"):
        check(der)
    u = int.from_bytes(key_bytes(spki(KeyType.X25519)), "little")
    der = encode_key_bytes(KeyType.X25519, pow(u, -1, FIELD_25519).to_bytes(32, "little"))
    with pytest.raises(WeakKeyError, match="prime order"):
        check(der)


def test_most_coordinates_that_nobody_multiplied_out_are_refused() -> None:
    """Of the points of curve and twist one in sixteen lies in the group."""
    refused = 0
    for number in range(64):
        der = encode_key_bytes(KeyType.X25519, (9 + number).to_bytes(32, "little"))
        try:
            check(der)
        except WeakKeyError:
            refused += 1
    assert 48 <= refused < 64  # 9, the base point, is in it


def test_a_statement_of_new_keys_is_accepted() -> None:
    for signing, encryption in ((KeyType.ED25519, KeyType.X25519), (KeyType.RSA_2048, KeyType.RSA_2048)):
        keys = encode_spki(generate(signing).public_key()), encode_spki(generate(encryption).public_key())
        assert parse_statement(statement(*keys)).signing_spki == keys[0]


# Whatever comes


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([KeyType.ED25519, KeyType.X25519]), st.binary(min_size=32, max_size=32))
def test_any_point_is_judged_or_refused_with_a_typed_error(key_type: KeyType, point: bytes) -> None:
    der = encode_key_bytes(key_type, point)
    assert len(set(related_key_ids(der))) >= 1
    with suppress(InvalidInputError):
        check(der)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=255, max_size=255))
def test_any_modulus_is_judged_or_refused_with_a_typed_error(modulus: bytes) -> None:
    der = spki(KeyType.RSA_2048)
    with suppress(InvalidInputError):
        check(der[: -len(modulus) - 5] + modulus + der[-5:])
