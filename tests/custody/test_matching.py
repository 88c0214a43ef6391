"""Guards P1: no private key is archived that is not the one of the given public key, in any key type and form.

What is refused is written by hand here, for no library makes keys that contradict themselves.
"""

import math
import re

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding, x448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.custody.matching import (
    InvalidPrivateKeyError,
    KeyMismatchError,
    MlKemSeedRequiredError,
    match_proof_name,
    prove_match,
)
from keyark.errors import InvalidInputError
from keyark.keys import der as _der
from keyark.keys.key_types import (
    ENCRYPTION_KEY_TYPES,
    SIGNING_KEY_TYPES,
    KeyType,
    UnsupportedKeyError,
)
from keyark.keys.spki import SpkiNotCanonicalError, encode_spki
from tests.support.keys.crypto import (
    RSA_ALGORITHM,
    integer,
    pkcs8,
    private_key_info,
    rsa_numbers,
    rsa_pkcs8,
)
from tests.support.keys.pki import private_key, spki

EC_TYPES = (KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_P521)
ML_KEM_TYPES = (KeyType.ML_KEM_768, KeyType.ML_KEM_1024)
QUICK_TYPES = (KeyType.RSA_2048, *EC_TYPES, KeyType.X25519, *ML_KEM_TYPES)
OIDS = {
    KeyType.EC_P256: "1.2.840.10045.3.1.7",
    KeyType.EC_P384: "1.3.132.0.34",
    KeyType.EC_P521: "1.3.132.0.35",
    KeyType.X25519: "1.3.101.110",
    KeyType.ML_KEM_768: "2.16.840.1.101.3.4.4.2",
    KeyType.ML_KEM_1024: "2.16.840.1.101.3.4.4.3",
}
ORDERS = {
    KeyType.EC_P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    KeyType.EC_P384: int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
        16,
    ),
    KeyType.EC_P521: int(
        "1" + 65 * "F" + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
    ),
}
quick = pytest.mark.parametrize("key_type", QUICK_TYPES)
each_curve = pytest.mark.parametrize("key_type", EC_TYPES)
each_ml_kem = pytest.mark.parametrize("key_type", ML_KEM_TYPES)


def refused(error, encoded, public):
    """The check refuses with exactly this error, and neither it nor what caused it shows a value of the key."""
    with pytest.raises(error) as caught:
        prove_match(encoded, public)
    assert type(caught.value) is error
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert not re.search(r"[0-9a-fA-F]{6}|b'", caught.value.message)
    assert caught.value.metadata == {}


def algorithm(key_type):
    if key_type in EC_TYPES:
        return _der.sequence(
            _der.object_identifier("1.2.840.10045.2.1"), _der.object_identifier(OIDS[key_type])
        )
    return RSA_ALGORITHM if key_type not in OIDS else _der.sequence(_der.object_identifier(OIDS[key_type]))


def bit_string_content(key_type, number=0):
    """What is inside the BIT STRING of the SPKI: the octet of unused bits, then the key."""
    encoded = spki(key_type, number)
    start = encoded.index(algorithm(key_type)) + len(algorithm(key_type))
    return encoded[start + header_size(encoded[start:]) :]


def header_size(element):
    return 2 if element[1] < 0x80 else 2 + (element[1] & 0x7F)


def content(key_type, number=0):
    """What is inside the OCTET STRING of the library's PKCS#8."""
    encoded = pkcs8(private_key(key_type, number))
    start = encoded.index(algorithm(key_type)) + len(algorithm(key_type))
    return encoded[start + header_size(encoded[start:]) :]


# What matches


@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_a_matching_key_is_returned_in_its_canonical_encoding(key_type):
    encoded = pkcs8(private_key(key_type))
    assert prove_match(encoded, spki(key_type)) == encoded


@quick
def test_version_1_with_the_right_public_key_is_returned_as_version_0(key_type):
    public = _der.tlv(0x81, bit_string_content(key_type))
    encoded = private_key_info(algorithm(key_type), content(key_type), version=1, optional=[public])
    assert prove_match(encoded, spki(key_type)) == pkcs8(private_key(key_type))


@each_curve
@pytest.mark.parametrize("with_curve", [False, True])
@pytest.mark.parametrize("with_public_key", [False, True])
def test_ec_keys_come_with_or_without_curve_and_public_key(key_type, with_curve, with_public_key):
    encoded = ec_pkcs8(
        key_type,
        curve=_der.object_identifier(OIDS[key_type]) if with_curve else None,
        public=_der.tlv(0x03, bit_string_content(key_type)) if with_public_key else None,
    )
    assert prove_match(encoded, spki(key_type)) == pkcs8(private_key(key_type))


def test_the_private_exponent_may_be_modulo_phi_or_modulo_lcm():
    """RFC 8017 §3.2 lets both; the CRT values are the same."""
    numbers = rsa_numbers()
    p, q = numbers["p"], numbers["q"]
    for modulus in ((p - 1) * (q - 1), math.lcm(p - 1, q - 1)):
        encoded = rsa_pkcs8(numbers | {"d": pow(65537, -1, modulus)})
        assert prove_match(encoded, spki(KeyType.RSA_2048)) == encoded


def test_primes_may_be_swapped():
    numbers = rsa_numbers()
    p, q = numbers["q"], numbers["p"]
    swapped = {"p": p, "q": q, "dp": numbers["dq"], "dq": numbers["dp"], "qinv": pow(q, -1, p)}
    encoded = rsa_pkcs8(numbers | swapped)
    assert prove_match(encoded, spki(KeyType.RSA_2048)) == encoded


def test_the_name_of_a_proof_follows_from_the_type():
    names = {t: match_proof_name(t) for t in ENCRYPTION_KEY_TYPES}
    assert names[KeyType.RSA_2048] == "rsa-2048: prime factors, components and decryption"
    assert names[KeyType.EC_P256] == "ec-p256: derived public key"
    assert names[KeyType.X25519] == "x25519: derived public key"
    assert names[KeyType.ML_KEM_768] == "ml-kem-768: encapsulation"
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("key_type", sorted(set(SIGNING_KEY_TYPES) - set(ENCRYPTION_KEY_TYPES), key=str))
def test_signing_keys_are_neither_named_nor_proven(key_type):
    with pytest.raises(UnsupportedKeyError):
        match_proof_name(key_type)
    with pytest.raises(UnsupportedKeyError):
        prove_match(pkcs8(private_key(key_type)), spki(key_type))


def test_a_public_key_in_another_encoding_is_refused():
    with pytest.raises(SpkiNotCanonicalError):
        prove_match(pkcs8(private_key(KeyType.EC_P256)), spki(KeyType.EC_P256)[:-64] + bytes(64))
    with pytest.raises(InvalidInputError):
        prove_match(pkcs8(private_key(KeyType.EC_P256)), b"")


# Another pair, another type


@quick
def test_the_key_of_another_pair_is_a_mismatch(key_type):
    refused(KeyMismatchError, pkcs8(private_key(key_type, 1)), spki(key_type))


@quick
@pytest.mark.parametrize("other", [*QUICK_TYPES, KeyType.ED25519, KeyType.ML_DSA_44])
def test_a_key_of_another_type_is_a_mismatch(key_type, other):
    if other is not key_type:
        refused(KeyMismatchError, pkcs8(private_key(other)), spki(key_type))


@pytest.mark.parametrize("key_class", [ed448.Ed448PrivateKey, x448.X448PrivateKey])
def test_a_key_of_an_algorithm_that_keyark_does_not_know_is_a_mismatch(key_class):
    refused(KeyMismatchError, pkcs8(key_class.generate()), spki(KeyType.X25519))


@quick
def test_version_1_with_the_key_of_another_pair_is_a_mismatch(key_type):
    public = _der.tlv(0x81, bit_string_content(key_type))
    encoded = private_key_info(algorithm(key_type), content(key_type, 1), version=1, optional=[public])
    refused(KeyMismatchError, encoded, spki(key_type))


@quick
def test_version_1_with_the_public_key_of_another_pair_is_refused(key_type):
    public = _der.tlv(0x81, bit_string_content(key_type, 1))
    encoded = private_key_info(algorithm(key_type), content(key_type), version=1, optional=[public])
    refused(InvalidPrivateKeyError, encoded, spki(key_type))


# RSA


def rsa_cases():
    good = rsa_numbers()
    n, d, p, q = good["n"], good["d"], good["p"], good["q"]
    lcm = math.lcm(p - 1, q - 1)
    return {
        "wrong d": {"d": d ^ 4},
        "wrong d, CRT values that follow": {"d": d ^ 4, "dp": (d ^ 4) % (p - 1), "dq": (d ^ 4) % (q - 1)},
        "all but the modulus of another key": rsa_numbers(1) | {"n": n},
        "d of another key": {"d": rsa_numbers(1)["d"]},
        "d of 0": {"d": 0},
        "d of 1": {"d": 1},
        "d beyond n": {"d": d + lcm * (n // lcm + 1)},
        "dp wrong": {"dp": good["dp"] ^ 2},
        "dp not reduced": {"dp": good["dp"] + p - 1},
        "dp of 0": {"dp": 0},
        "dq wrong": {"dq": good["dq"] ^ 2},
        "dq not reduced": {"dq": good["dq"] + q - 1},
        "qinv wrong": {"qinv": good["qinv"] ^ 1},
        "qinv not reduced": {"qinv": good["qinv"] + p},
        "qinv of 0": {"qinv": 0},
        "dp and dq swapped": {"dp": good["dq"], "dq": good["dp"]},
        "primes of another key": {"p": rsa_numbers(1)["p"], "q": rsa_numbers(1)["q"]},
        "one prime of another key": {"p": rsa_numbers(1)["p"]},
        "primes swapped, CRT values not": {"p": q, "q": p},
        "p = 0": {"p": 0},
        "p = 1": {"p": 1},
        "p = 1, q = n": {"p": 1, "q": n, "dp": 0, "dq": d % (n - 1), "qinv": 0},
        "p = n, q = 1": {"p": n, "q": 1, "dp": d % (n - 1), "dq": 0, "qinv": 1},
        "p = q": {"q": p},
        "p and q negative": {"p": -p, "q": -q},
        "p huge": {"p": 1 << 60_000},
        "e = 3": {"e": 3},
        "e = 1": {"e": 1, "d": 1},
        "e = 0": {"e": 0},
        "e = 65536": {"e": 65536},
        "e = 65537 + lcm": {"e": 65537 + lcm},
        "negative n": {"n": -n},
        "negative e": {"e": -65537},
        "negative d": {"d": d - lcm},
        "negative p": {"p": -p},
        "negative dp": {"dp": good["dp"] - (p - 1)},
        "negative qinv": {"qinv": good["qinv"] - p},
        "multi-prime version": {"version": 1},
        "negative version": {"version": -1},
    }


@pytest.mark.parametrize("case", list(rsa_cases()))
def test_rsa_numbers_that_contradict_one_another_are_refused(case):
    refused(InvalidPrivateKeyError, rsa_pkcs8(rsa_numbers() | rsa_cases()[case]), spki(KeyType.RSA_2048))


def test_an_rsa_modulus_that_is_not_the_given_one_is_a_mismatch():
    numbers = rsa_numbers()
    refused(KeyMismatchError, rsa_pkcs8(numbers | {"n": numbers["n"] + 2}), spki(KeyType.RSA_2048))
    refused(KeyMismatchError, rsa_pkcs8(numbers | {"n": 0}), spki(KeyType.RSA_2048))


def test_why_the_numbers_carry_the_proof():
    """A key whose d is wrong decrypts with its CRT values: a trial decryption alone would archive half a key."""
    encoded = rsa_pkcs8(rsa_numbers() | {"d": rsa_numbers()["d"] ^ 4})
    key = load_der_private_key(encoded, None, unsafe_skip_rsa_key_validation=True)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    ciphertext = private_key(KeyType.RSA_2048).public_key().encrypt(b"message", oaep)
    assert key.decrypt(ciphertext, oaep) == b"message"
    refused(InvalidPrivateKeyError, encoded, spki(KeyType.RSA_2048))


def consistent_rsa(p, q):
    """Numbers that pass the arithmetic, whatever p and q are, and their SPKI."""
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    numbers = {"version": 0, "n": p * q, "e": 65537, "d": d, "p": p, "q": q}
    numbers |= {"dp": d % (p - 1), "dq": d % (q - 1), "qinv": pow(q, -1, p)}
    public = _der.sequence(RSA_ALGORITHM, _der.bit_string(_der.sequence(integer(p * q), integer(65537))))
    return numbers, public


def test_a_prime_that_is_none_does_not_decrypt():
    q = rsa_numbers()["q"] + 2
    while pow(2, q - 1, q) == 1 or (q - 1) % 65537 == 0:
        q += 2
    numbers, public = consistent_rsa(rsa_numbers()["p"], q)
    refused(KeyMismatchError, rsa_pkcs8(numbers), public)


def test_an_even_modulus_is_refused():
    numbers, public = consistent_rsa((1 << 2046) + 1, 2)
    refused(InvalidPrivateKeyError, rsa_pkcs8(numbers), public)


def test_an_rsa_key_with_a_field_too_many_or_too_few_is_refused():
    numbers = rsa_numbers()
    refused(InvalidPrivateKeyError, rsa_pkcs8(numbers, optional=[_der.sequence()]), spki(KeyType.RSA_2048))
    refused(InvalidPrivateKeyError, rsa_pkcs8(numbers, optional=[integer(1)]), spki(KeyType.RSA_2048))
    short = _der.sequence(*(integer(numbers[name]) for name in ("version", "n", "e", "d")))
    refused(InvalidPrivateKeyError, private_key_info(RSA_ALGORITHM, short), spki(KeyType.RSA_2048))


def test_padded_rsa_numbers_are_refused():
    encoded = content(KeyType.RSA_2048)
    padded = _der.sequence(b"\x02\x02\x00\x00" + encoded[encoded.index(b"\x02\x01\x00") + 3 :])
    refused(InvalidPrivateKeyError, private_key_info(RSA_ALGORITHM, padded), spki(KeyType.RSA_2048))


# EC and X25519


def ec_pkcs8(key_type, *, scalar=None, curve=None, public=None, version=1, extra=b""):
    """PKCS#8 with an ECPrivateKey (RFC 5915 §3); parts are DER, the scalar is bytes."""
    if scalar is None:
        size = (private_key(key_type).key_size + 7) // 8
        scalar = private_key(key_type).private_numbers().private_value.to_bytes(size, "big")
    parts = [integer(version), _der.octet_string(scalar)]
    parts += [_der.explicit(0, curve)] if curve is not None else []
    parts += [_der.explicit(1, public)] if public is not None else []
    return private_key_info(algorithm(key_type), _der.sequence(*parts, extra))


@each_curve
def test_ec_scalars_out_of_range_are_refused(key_type):
    size = (private_key(key_type).key_size + 7) // 8
    order = ORDERS[key_type]
    assert ec.derive_private_key(order - 1, private_key(key_type).curve)  # the order is the right one
    own = private_key(key_type).private_numbers().private_value
    for scalar in (0, order, order + 1, 256**size - 1):
        refused(
            InvalidPrivateKeyError,
            ec_pkcs8(key_type, scalar=scalar.to_bytes(size, "big")),
            spki(key_type),
        )
    if own + order < 256**size:
        refused(
            InvalidPrivateKeyError,
            ec_pkcs8(key_type, scalar=(own + order).to_bytes(size, "big")),
            spki(key_type),
        )


@each_curve
def test_the_negated_ec_scalar_is_a_mismatch(key_type):
    """Its public key has the same x."""
    size = (private_key(key_type).key_size + 7) // 8
    scalar = ORDERS[key_type] - private_key(key_type).private_numbers().private_value
    refused(KeyMismatchError, ec_pkcs8(key_type, scalar=scalar.to_bytes(size, "big")), spki(key_type))


@each_curve
def test_a_foreign_scalar_with_the_right_public_key_is_a_mismatch(key_type):
    """The public key inside the private key is never believed."""
    size = (private_key(key_type).key_size + 7) // 8
    scalar = private_key(key_type, 1).private_numbers().private_value.to_bytes(size, "big")
    public = _der.tlv(0x03, bit_string_content(key_type))
    refused(KeyMismatchError, ec_pkcs8(key_type, scalar=scalar, public=public), spki(key_type))


@each_curve
def test_a_foreign_public_key_with_the_right_scalar_is_refused(key_type):
    curve = _der.object_identifier(OIDS[key_type])
    for public in (
        _der.tlv(0x03, bit_string_content(key_type, 1)),
        _der.tlv(0x03, b""),
        _der.bit_string(
            private_key(key_type).public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        ),
    ):
        refused(InvalidPrivateKeyError, ec_pkcs8(key_type, public=public), spki(key_type))
        refused(InvalidPrivateKeyError, ec_pkcs8(key_type, public=public, curve=curve), spki(key_type))


@each_curve
def test_other_ec_forms_are_refused(key_type):
    size = (private_key(key_type).key_size + 7) // 8
    scalar = private_key(key_type).private_numbers().private_value.to_bytes(size, "big")
    other = KeyType.EC_P384 if key_type is KeyType.EC_P256 else KeyType.EC_P256
    cases = {
        "version 0": {"version": 0},
        "version 2": {"version": 2},
        "short scalar": {"scalar": scalar[1:]},
        "long scalar": {"scalar": b"\0" + scalar},
        "no scalar": {"scalar": b""},
        "another curve": {"curve": _der.object_identifier(OIDS[other])},
        "explicit parameters": {"curve": _der.sequence(integer(1))},
        "empty parameters": {"curve": b""},
        "trailing element": {"extra": b"\x05\x00"},
        "attributes": {"extra": _der.explicit(2, b"")},
        "curve twice": {
            "curve": _der.object_identifier(OIDS[key_type]),
            "extra": _der.explicit(0, _der.object_identifier(OIDS[key_type])),
        },
    }
    for case in cases.values():
        refused(InvalidPrivateKeyError, ec_pkcs8(key_type, **case), spki(key_type))


@each_curve
@pytest.mark.parametrize("inner", [b"", b"\x30\x00", b"\x30\x03\x02\x01\x01", b"\x04\x01\x00"])
def test_ec_keys_without_a_scalar_are_refused(key_type, inner):
    refused(InvalidPrivateKeyError, private_key_info(algorithm(key_type), inner), spki(key_type))


@pytest.mark.parametrize(
    "inner", [b"", bytes(32), _der.octet_string(bytes(31)), _der.octet_string(bytes(33))]
)
def test_x25519_keys_of_another_size_are_refused(inner):
    encoded = private_key_info(algorithm(KeyType.X25519), inner)
    refused(InvalidPrivateKeyError, encoded, spki(KeyType.X25519))


# ML-KEM


@each_ml_kem
def test_ml_kem_keys_without_a_bare_seed_need_one(key_type):
    seed = private_key(key_type).private_bytes_raw()
    expanded = _der.octet_string(bytes(2400 if key_type is KeyType.ML_KEM_768 else 3168))
    for inner in (expanded, _der.sequence(_der.octet_string(seed), expanded)):
        refused(MlKemSeedRequiredError, private_key_info(algorithm(key_type), inner), spki(key_type))


@each_ml_kem
def test_other_ml_kem_forms_are_refused(key_type):
    seed = private_key(key_type).private_bytes_raw()
    for inner in (
        b"",
        seed,
        _der.implicit(0, seed[:-1]),
        _der.implicit(0, seed + b"\0"),
        _der.implicit(1, seed),
        _der.implicit(0, seed) + b"\x05\x00",
        _der.implicit(0, seed) * 2,
    ):
        refused(InvalidPrivateKeyError, private_key_info(algorithm(key_type), inner), spki(key_type))


@each_ml_kem
def test_the_first_half_of_the_seed_makes_the_key(key_type):
    """The second half is only for implicit rejection (FIPS 203 §6.1), so the key still opens what it should."""
    seed = private_key(key_type).private_bytes_raw()
    flipped = bytes([seed[0] ^ 1]) + seed[1:]
    encoded = private_key_info(algorithm(key_type), _der.implicit(0, flipped))
    refused(KeyMismatchError, encoded, spki(key_type))


# The structure around the key


def outer_cases(key_type):
    encoded = pkcs8(private_key(key_type))
    inner, public = content(key_type), bit_string_content(key_type)
    parts = [algorithm(key_type), inner]
    attributes = _der.explicit(0, b"")
    body = encoded[header_size(encoded) :]
    return {
        "nothing": b"",
        "a lone tag": encoded[:1],
        "cut short": encoded[:-1],
        "cut in the header": encoded[:2],
        "trailing byte": encoded + b"\0",
        "trailing element": encoded + b"\x05\x00",
        "twice": encoded * 2,
        "another tag": b"\x31" + encoded[1:],
        "indefinite length": b"\x30\x80" + body + b"\0\0",
        "padded length": b"\x30\x83\x00" + len(body).to_bytes(2, "big") + body,
        "length that needs no second octet": b"\x30\x81\x7f" + body[:0x7F],
        "padded two-octet length": b"\x30\x82\x00" + bytes([len(body) & 0xFF]) + body,
        "huge length": b"\x30\x84\xff\xff\xff\xff" + body,
        "empty attributes": private_key_info(*parts, optional=[attributes]),
        "attributes": private_key_info(*parts, optional=[_der.explicit(0, _der.sequence(b"\x05\x00"))]),
        "attributes, version 1": private_key_info(
            *parts, version=1, optional=[attributes, _der.tlv(0x81, public)]
        ),
        "version 1 alone": private_key_info(*parts, version=1),
        "version 0 with public key": private_key_info(*parts, optional=[_der.tlv(0x81, public)]),
        "version 2": private_key_info(*parts, version=2),
        "negative version": private_key_info(*parts, version=-1),
        "constructed public key": private_key_info(*parts, version=1, optional=[_der.explicit(1, public)]),
        "public key twice": private_key_info(*parts, version=1, optional=[_der.tlv(0x81, public)] * 2),
        "unknown field": private_key_info(*parts, optional=[_der.tlv(0x82, b"")]),
        "no private key": _der.sequence(integer(0), algorithm(key_type)),
        "private key as bit string": _der.sequence(integer(0), algorithm(key_type), _der.bit_string(inner)),
        "private key with trailing byte": private_key_info(parts[0], inner + b"\0"),
        "private key with trailing element": private_key_info(parts[0], inner + b"\x05\x00"),
        "private key alone": inner,
        "too large": bytes(16 * 1024 + 1),
    }


@quick
@pytest.mark.parametrize("case", list(outer_cases(KeyType.EC_P256)))
def test_other_structures_are_refused(key_type, case):
    refused(InvalidPrivateKeyError, outer_cases(key_type)[case], spki(key_type))


@quick
def test_lengths_are_in_their_shortest_form(key_type):
    """The same elements, of which one has a length in more octets than it needs."""
    for long_form in (b"\x02\x81\x01\x00", b"\x02\x82\x00\x01\x00"):
        encoded = _der.sequence(long_form, algorithm(key_type), _der.octet_string(content(key_type)))
        refused(InvalidPrivateKeyError, encoded, spki(key_type))


@pytest.mark.parametrize(("case", "words"), [("attributes", "attributes"), ("too large", "16384 bytes")])
def test_what_is_wrong_is_said(case, words):
    with pytest.raises(InvalidPrivateKeyError, match=words):
        prove_match(outer_cases(KeyType.EC_P256)[case], spki(KeyType.EC_P256))


@quick
def test_encrypted_and_pem_encoded_keys_are_refused(key_type):
    key = private_key(key_type)
    encrypted = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    refused(InvalidPrivateKeyError, encrypted, spki(key_type))
    refused(InvalidPrivateKeyError, pem, spki(key_type))


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, *EC_TYPES])
def test_traditional_encodings_are_refused(key_type):
    encoded = private_key(key_type).private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    refused(InvalidPrivateKeyError, encoded, spki(key_type))


def test_other_parameters_of_the_same_algorithm_are_a_mismatch():
    bare = _der.sequence(_der.object_identifier("1.2.840.113549.1.1.1"))
    pss = _der.sequence(_der.object_identifier("1.2.840.113549.1.1.10"))
    for identifier in (bare, pss):
        encoded = private_key_info(identifier, content(KeyType.RSA_2048))
        refused(KeyMismatchError, encoded, spki(KeyType.RSA_2048))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([KeyType.RSA_2048, KeyType.EC_P256, KeyType.X25519, KeyType.ML_KEM_768]), st.data())
def test_a_key_with_a_flipped_bit_is_refused_or_still_the_right_one(key_type, data):
    """Some bits of X25519 scalars and ML-KEM seeds do not reach the public key; all others do."""
    encoded = bytearray(pkcs8(private_key(key_type)))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    try:
        proven = prove_match(bytes(encoded), spki(key_type))
    except (InvalidPrivateKeyError, KeyMismatchError):
        return
    assert key_type in (KeyType.X25519, KeyType.ML_KEM_768)
    assert encode_spki(load_der_private_key(proven, None).public_key()) == spki(key_type)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(QUICK_TYPES), st.binary(max_size=80), st.binary(max_size=80))
def test_arbitrary_bytes_are_refused(key_type, inner, junk):
    refused(InvalidPrivateKeyError, junk, spki(key_type))
    with pytest.raises(InvalidPrivateKeyError):
        prove_match(private_key_info(algorithm(key_type), inner), spki(key_type))
