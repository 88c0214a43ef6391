"""A new key type has a whole row, and what lists key types names it; no other size, curve or exponent is taken."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x448

from keyark.errors import InvalidInputError
from keyark.keys.key_facts import Algorithm
from keyark.keys.key_types import (
    CA_KEY_TYPES,
    EC_KEY_TYPES,
    ENCRYPTION_KEY_TYPES,
    RSA_KEY_TYPES,
    SIGNING_KEY_TYPES,
    TRANSPORT_KEY_TYPES,
    KeyType,
    UnsupportedKeyError,
    check_key_type,
    key_type_of,
    parse_key_type,
)
from keyark.v1 import common_pb2
from tests.support.keys.pki import private_key, spki

ROOT = Path(__file__).parents[2]


def test_names_are_those_of_the_command_line():
    assert [t.value for t in KeyType] == [
        "rsa-2048",
        "rsa-3072",
        "rsa-4096",
        "ec-p256",
        "ec-p384",
        "ec-p521",
        "ed25519",
        "x25519",
        "ml-dsa-44",
        "ml-dsa-65",
        "ml-dsa-87",
        "ml-kem-768",
        "ml-kem-1024",
    ]


def test_names_of_the_contract_are_those_of_the_code():
    assert {common_pb2.KeyType.Name(t.proto) for t in KeyType} == {f"KEY_TYPE_{t.name}" for t in KeyType}


def test_every_row_says_how_keys_sign_and_what_they_are_certified_for():
    signing, encryption = set(SIGNING_KEY_TYPES), set(ENCRYPTION_KEY_TYPES)
    assert {t for t in KeyType if t.facts.signature is not None} == signing
    assert {t for t in KeyType if t.facts.usages} == encryption


def test_every_row_says_what_its_family_needs():
    assert {t for t in KeyType if t.facts.curve and t.facts.field} == set(EC_KEY_TYPES)
    assert {t for t in KeyType if t.facts.load_seed} == {
        t for t in KeyType if t.algorithm is Algorithm.ML_KEM
    }
    assert {t for t in KeyType if t.facts.bits} == {*RSA_KEY_TYPES, *EC_KEY_TYPES}


@pytest.mark.parametrize("key_type", EC_KEY_TYPES)
def test_the_field_of_a_curve_is_the_one_of_its_points(key_type):
    point, field = private_key(key_type).public_key().public_numbers(), key_type.facts.field
    negated = ec.EllipticCurvePublicNumbers(point.x, -point.y % field, point.curve)
    assert field.bit_length() == key_type.facts.bits
    assert key_type_of(negated.public_key()) is key_type  # on the curve, or it would not load


def test_the_protocol_tells_the_size_of_every_type():
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    table = protocol.partition("| type | role | SPKI | bytes |")[2].partition("\n\n")[0]
    told = {int(size) for row in table.splitlines()[2:] for size in row.split("|")[4].split(",")}
    assert told == {len(spki(t)) for t in KeyType}


def test_there_is_a_vector_of_every_type():
    vectors = json.loads((ROOT / "tests" / "vectors" / "pki" / "statements.json").read_text())["vectors"]
    named = {vector[f"{role}_key_type"] for vector in vectors for role in ("signing", "encryption")}
    assert named == {t.value for t in KeyType}


def test_every_number_of_the_contract_is_a_type_and_back():
    numbers = set(common_pb2.KeyType.values()) - {common_pb2.KEY_TYPE_UNSPECIFIED}
    assert {KeyType.from_proto(number).proto for number in numbers} == numbers


@pytest.mark.parametrize("number", [0, 14, -1, 1 << 31])
def test_unknown_numbers_are_refused_with_the_field(number):
    with pytest.raises(InvalidInputError, match="rsa-2048") as caught:
        KeyType.from_proto(number, field="signing_key_type")
    assert caught.value.field == "signing_key_type"


@pytest.mark.parametrize("key_type", KeyType)
def test_a_generated_key_is_of_its_type(key_type):
    assert key_type_of(private_key(key_type).public_key()) is key_type


@pytest.mark.parametrize("key_type", KeyType)
def test_names_parse(key_type):
    assert parse_key_type(key_type.value) is key_type


@pytest.mark.parametrize("name", ["", "RSA-2048", "rsa", "rsa2048", "dsa", "ec-p256 "])
def test_other_names_are_refused_with_a_list_of_what_fits(name):
    with pytest.raises(InvalidInputError, match="ec-p256, rsa-3072"):
        parse_key_type(name, permitted=TRANSPORT_KEY_TYPES)


def test_a_type_that_does_not_fit_is_refused_by_name():
    with pytest.raises(InvalidInputError, match=r"ed25519.*does not fit"):
        parse_key_type("ed25519", permitted=ENCRYPTION_KEY_TYPES)


def test_roles_share_no_more_than_rsa_and_ec():
    shared = set(SIGNING_KEY_TYPES) & set(ENCRYPTION_KEY_TYPES)
    assert {t.value.split("-")[0] for t in shared} == {"rsa", "ec"}
    assert set(SIGNING_KEY_TYPES) | set(ENCRYPTION_KEY_TYPES) == set(KeyType)


def test_every_ca_key_type_signs_and_p256_is_the_default():
    assert set(CA_KEY_TYPES) <= set(SIGNING_KEY_TYPES)
    assert CA_KEY_TYPES[0] is KeyType.EC_P256


def test_check_key_type_names_both_sides():
    with pytest.raises(UnsupportedKeyError, match=r"x25519.*ec-p256, rsa-3072"):
        check_key_type(KeyType.X25519, TRANSPORT_KEY_TYPES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        lambda: rsa.generate_private_key(65537, 2056),
        lambda: rsa.generate_private_key(3, 2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
        lambda: ec.generate_private_key(ec.SECP224R1()),
        lambda: dsa.generate_private_key(2048),
        ed448.Ed448PrivateKey.generate,
        x448.X448PrivateKey.generate,
    ],
    ids=["rsa-1024", "rsa-2056", "rsa-e3", "k1", "brainpool", "p224", "dsa", "ed448", "x448"],
)
def test_other_keys_are_refused(make):
    with pytest.raises(UnsupportedKeyError, match=r"use one of|need the public exponent"):
        key_type_of(make().public_key())
