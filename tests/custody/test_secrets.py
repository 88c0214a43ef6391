"""Guards P10: no object that holds a secret shows it when it is printed, formatted, or part of an error."""

import traceback

import pytest

from keyark.custody.envelopes import TransportKey
from keyark.custody.matching import prove_match
from keyark.custody.shares import Share, WrongShareError
from keyark.custody.storage import StoragePrivateKey
from keyark.custody.token import create_software_token, open_share
from keyark.errors import KeyarkError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, KeyType
from keyark.keys.pkcs8 import parse_private_key_info, read_elements
from tests.support.keys.crypto import pkcs8, recovery_agent, recovery_agents
from tests.support.keys.pki import private_key, spki


def renderings(secret):
    """Every way in which a secret's first or last 8 bytes could be readable."""
    for part in (secret[:8], secret[-8:]):
        yield from (part.hex(), part.hex().upper(), repr(part)[2:-1], str(int.from_bytes(part, "big")))
        yield ", ".join(map(str, part))


def assert_hidden(text, *secrets):
    for secret in secrets:
        for rendering in renderings(secret):
            assert rendering not in text


def shown(value):
    return f"{value} {value!r} {[value]} {value!s:>5}"


def test_the_check_itself_finds_secrets():
    for text in ("00010203040506070809", repr(bytes(range(65, 81))), repr(list(range(16)))):
        with pytest.raises(AssertionError):
            assert_hidden(text, bytes(range(16)), bytes(range(65, 81)))


@pytest.mark.parametrize("key", [StoragePrivateKey.generate(), recovery_agent("alice").share_key])
def test_hybrid_private_keys(key):
    secret = key.to_bytes()
    assert_hidden(shown(key), secret[:64], secret[64:])
    assert key.public_key.key_id.hex() in repr(key)


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_3072])
def test_transport_keys(key_type):
    key, numbers = private_key(key_type), private_key(key_type).private_numbers()
    value = numbers.private_value if key_type is KeyType.EC_P256 else numbers.d
    size = 32 if key_type is KeyType.EC_P256 else 384
    assert_hidden(shown(TransportKey(key)), value.to_bytes(size, "big"))


def test_shares():
    share = Share(1, bytes(range(100, 132)))
    assert_hidden(shown(share), share.value)
    assert repr(share) == "Share(index=1)"


def test_parsed_private_keys():
    scalar = private_key(KeyType.EC_P256).private_numbers().private_value.to_bytes(32, "big")
    encoded = pkcs8(private_key(KeyType.EC_P256))
    info = parse_private_key_info(encoded)
    assert_hidden(shown(info), scalar, info.private_key)
    assert_hidden(shown(read_elements(encoded)), scalar, encoded)


@pytest.mark.parametrize("key_type", sorted(set(ENCRYPTION_KEY_TYPES) - {KeyType.RSA_4096}, key=str))
def test_errors_of_the_match_check(key_type):
    encoded = pkcs8(private_key(key_type))
    for wrong in (encoded + b"\0", encoded[:-1], pkcs8(private_key(key_type, 1))):
        with pytest.raises(KeyarkError) as caught:
            prove_match(wrong, spki(key_type))
        text = "".join(traceback.format_exception(caught.value))
        assert_hidden(text, wrong[-40:], wrong[40:60])


def test_errors_of_shares():
    agents = recovery_agents(2)
    token, _ = create_software_token([agent.public for agent in agents], 2)
    share = open_share(token, agents[0].share_key, agents[0].name)
    with pytest.raises(WrongShareError) as caught:
        Share(300, share.value)
    assert_hidden("".join(traceback.format_exception(caught.value)), share.value)
