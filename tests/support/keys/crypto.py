"""Private keys by hand and recovery agents, for tests of the crypto package and of what builds on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.keys import der as _der
from keyark.keys.key_types import KeyType, generate
from tests.support.keys.pki import TRUST_DOMAIN, identity_certificate, private_key

RSA_ALGORITHM = _der.sequence(_der.object_identifier("1.2.840.113549.1.1.1"), _der.NULL)
RSA_FIELDS = ("version", "n", "e", "d", "p", "q", "dp", "dq", "qinv")


def pkcs8(key: Any) -> bytes:
    """A private key as the library encodes it: PKCS#8 DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def integer(number: int) -> bytes:
    """A DER INTEGER of any sign."""
    return _der.tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def private_key_info(
    algorithm: bytes, content: bytes, *, version: int = 0, optional: Sequence[bytes] = ()
) -> bytes:
    """PKCS#8 DER around the content of a private key."""
    return _der.sequence(integer(version), algorithm, _der.octet_string(content), *optional)


def rsa_numbers(number: int = 0, key_type: KeyType = KeyType.RSA_2048) -> dict[str, int]:
    """The fields of RSAPrivateKey (RFC 8017 §A.1.2) of ``private_key(key_type, number)``."""
    numbers = private_key(key_type, number).private_numbers()
    public = numbers.public_numbers
    return {
        "version": 0,
        "n": public.n,
        "e": public.e,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qinv": numbers.iqmp,
    }


def rsa_pkcs8(numbers: dict[str, int], *, optional: Sequence[bytes] = ()) -> bytes:
    """PKCS#8 DER of an RSA key, consistent or not, as no library would write it."""
    key = _der.sequence(*(integer(numbers[name]) for name in RSA_FIELDS), *optional)
    return private_key_info(RSA_ALGORITHM, key)


@dataclass(frozen=True)
class Agent:
    """A recovery agent: SPIFFE ID, certificate key, share key pair, and the signed public half."""

    name: str
    certificate_key: Any
    share_key: ShareKey
    public: AgentShareKey


@cache
def recovery_agent(name: str) -> Agent:
    """The same agent for the same name; the certificate is valid around tests.support.keys.pki.NOW."""
    key, share_key = generate(KeyType.EC_P256), ShareKey.generate()
    certificate = identity_certificate(f"agent/{name}", key=key)
    public = AgentShareKey.create(share_key=share_key, certificate=certificate, certificate_key=key)
    return Agent(f"spiffe://{TRUST_DOMAIN}/agent/{name}", key, share_key, public)


def recovery_agents(count: int) -> list[Agent]:
    """The first agents, by number."""
    return [recovery_agent(f"agent-{number}") for number in range(1, count + 1)]
