"""Guards that a public key has one encoding: uniqueness and key roles (P8) compare its bytes."""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import InvalidInputError
from keyark.keys import der as _der
from keyark.keys.key_types import KeyType, UnsupportedKeyError, key_type_of
from keyark.keys.spki import (
    SpkiNotCanonicalError,
    encode_spki,
    key_id,
    key_identifier,
    load_spki,
    spki_key_type,
)
from tests.support.keys.pki import private_key, spki

P256_ALGORITHM = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
RSA_OID = bytes.fromhex("06092a864886f70d010101")


def wrap(algorithm: bytes, key: bytes) -> bytes:
    return _der.sequence(algorithm, _der.bit_string(key))


@pytest.mark.parametrize("key_type", KeyType)
def test_canonical_keys_load_and_encode_to_themselves(key_type):
    der = spki(key_type)
    loaded = load_spki(der)
    assert key_type_of(loaded) is key_type
    assert spki_key_type(der) is key_type
    assert encode_spki(loaded) == der


def test_key_id_is_the_hash_of_the_whole():
    assert key_id(spki(KeyType.ED25519)) == sha256(spki(KeyType.ED25519)).digest()


@pytest.mark.parametrize(
    ("key_type", "key_size"), [(KeyType.EC_P256, 65), (KeyType.ED25519, 32), (KeyType.RSA_2048, 270)]
)
def test_key_identifier_hashes_the_bits_of_the_key_alone(key_type, key_size):
    der = spki(key_type)
    assert key_identifier(der) == sha256(der[-key_size:]).digest()[:20]


@pytest.mark.parametrize("form", ["compressed", "hybrid"])
def test_other_point_formats_are_refused(form):
    public_key = private_key(KeyType.EC_P256).public_key()
    point = public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    if form == "hybrid":
        whole = public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        point = bytes((0x06 | (whole[-1] & 1),)) + whole[1:]
    with pytest.raises(SpkiNotCanonicalError) as caught:
        load_spki(wrap(P256_ALGORITHM, point), field="signing_spki")
    assert caught.value.field == "signing_spki"


@pytest.mark.parametrize("key_type", KeyType)
def test_trailing_bytes_are_refused(key_type):
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(spki(key_type) + b"\x00")


@pytest.mark.parametrize("key_type", KeyType)
def test_truncated_keys_are_refused(key_type):
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(spki(key_type)[:-1])


@pytest.mark.parametrize("key_type", KeyType)
def test_longer_length_octets_are_refused(key_type):
    """BER lets a length take more octets than it needs; DER does not."""
    der = spki(key_type)
    skip = 1 if der[1] < 0x80 else 1 + (der[1] & 0x7F)
    body = der[1 + skip :]
    with pytest.raises(InvalidInputError):
        load_spki(b"\x30\x84" + len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (RSA_OID, bytes.fromhex("06092a864886f70d01010a")),  # RSASSA-PSS
        (RSA_OID, bytes.fromhex("06092a864886f70d010107")),  # RSAES-OAEP
    ],
)
def test_other_rsa_algorithms_are_refused(old, new):
    with pytest.raises(UnsupportedKeyError):
        load_spki(spki(KeyType.RSA_2048).replace(old, new))


def test_rsa_without_null_parameters_is_refused():
    key = spki(KeyType.RSA_2048)[24:]
    with pytest.raises(UnsupportedKeyError):
        load_spki(wrap(_der.sequence(RSA_OID), key))


@pytest.mark.parametrize("oid", ["1.3.132.1.12", "1.3.132.1.13"])
def test_ecdh_only_identifiers_are_refused(oid):
    algorithm = _der.sequence(_der.object_identifier(oid), _der.object_identifier("1.2.840.10045.3.1.7"))
    with pytest.raises(UnsupportedKeyError):
        load_spki(wrap(algorithm, spki(KeyType.EC_P256)[-65:]))


def test_diffie_hellman_keys_are_refused_unparsed():
    """The library warns when it parses one, and warnings are errors here."""
    algorithm = _der.sequence(_der.object_identifier("1.2.840.113549.1.3.1"), _der.sequence())
    with pytest.raises(UnsupportedKeyError):
        load_spki(wrap(algorithm, b"\x02\x01\x05"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 1024),
        lambda: rsa.generate_private_key(3, 2048),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate,
    ],
    ids=["rsa-1024", "rsa-e3", "k1", "ed448"],
)
def test_unsupported_keys_are_refused(make):
    with pytest.raises(UnsupportedKeyError) as caught:
        load_spki(encode_spki(make().public_key()), field="encryption_spki")
    assert caught.value.field == "encryption_spki"


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_P521])
def test_points_off_the_curve_are_refused(key_type):
    der = bytearray(spki(key_type))
    der[-1] ^= 1
    with pytest.raises(SpkiNotCanonicalError, match="not valid"):
        load_spki(bytes(der))


def test_an_exponent_of_the_same_size_is_refused():
    with pytest.raises(UnsupportedKeyError, match="65537"):
        load_spki(spki(KeyType.RSA_2048).replace(bytes.fromhex("0203010001"), bytes.fromhex("0203010003")))


def test_a_padded_modulus_is_refused():
    """A modulus of one bit less needs no zero byte before it; with one the size would still be right."""
    der = bytearray(spki(KeyType.RSA_2048))
    modulus = len(der) - 5 - 256
    assert der[modulus - 1] == 0
    der[modulus] &= 0x7F
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(bytes(der))


def test_unreduced_ml_kem_keys_are_refused():
    """FIPS 203 §7.2: coefficients of an encapsulation key are below q."""
    der = bytearray(spki(KeyType.ML_KEM_768))
    der[-1184:-1181] = b"\xff\xff\xff"
    with pytest.raises(SpkiNotCanonicalError):
        load_spki(bytes(der))


@given(st.binary(max_size=400))
def test_random_bytes_raise_typed_errors(data):
    with pytest.raises(InvalidInputError):
        load_spki(data)


@given(st.sampled_from(list(KeyType)), st.data())
def test_whatever_loads_is_its_own_encoding(key_type, data):
    der = bytearray(spki(key_type))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, min(len(der) - 1, 60)))] = data.draw(st.integers(0, 255))
    try:
        loaded = load_spki(bytes(der))
    except InvalidInputError:
        return
    assert encode_spki(loaded) == bytes(der)
