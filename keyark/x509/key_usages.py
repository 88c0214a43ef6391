"""What a key may be certified for: key usage by role and key type (RFC 5280 §4.2.1.3).

The two roles share no usage: a key that is archived signs nothing, and a key that signs is never archived (P8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from keyark.errors import ConfigurationError
from keyark.keys.key_types import KeyType
from keyark.x509.authority import key_usage

_NARROWING: Final = {"encipherOnly": "encipher_only", "decipherOnly": "decipher_only"}
_ATTRIBUTES: Final = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
}
_OF_AUTHORITIES: Final = {"keyCertSign": "key_cert_sign", "cRLSign": "crl_sign"}

SIGNING_USAGES: Final = ("digitalSignature", "nonRepudiation")
"""What a signing certificate may have, and has by default."""


def encryption_usages(key_type: KeyType) -> tuple[str, ...]:
    """Return what an encryption certificate for such a key may have; the first is what it has by default."""
    return key_type.facts.usages


def encryption_attribute(key_type: KeyType) -> str:
    """Return the name in ``cryptography`` of what an encryption certificate for such a key has by default."""
    return _ATTRIBUTES[key_type.facts.usages[0]]


def usage_extension(names: Sequence[str]) -> x509.KeyUsage:
    """Return the extension with these usages, named as in RFC 5280."""
    attributes = _ATTRIBUTES | _NARROWING
    return key_usage(*(attributes[name] for name in names))


def usage_names(extension: x509.KeyUsage) -> tuple[str, ...]:
    """Return the usages of an extension, named as in RFC 5280."""
    readable = _ATTRIBUTES | _OF_AUTHORITIES | (_NARROWING if extension.key_agreement else {})
    return tuple(name for name, attribute in readable.items() if getattr(extension, attribute))


def check_signing_usage(names: Sequence[str]) -> None:
    """Raise ConfigurationError unless a signing certificate may have these usages, at least one."""
    _check_possible(names, SIGNING_USAGES, "signing certificates")


def check_encryption_usage(names: Sequence[str], key_type: KeyType) -> None:
    """Raise ConfigurationError unless an encryption certificate for such a key may have these usages.

    One of them has to encrypt, and encipherOnly and decipherOnly exclude each other.
    """
    possible = encryption_usages(key_type)
    _check_possible(names, possible, f"encryption certificates for {key_type.value} keys")
    if set(names) <= set(_NARROWING) or set(_NARROWING) <= set(names):
        raise ConfigurationError(
            f"{', '.join(names)} encrypts nothing; give {possible[0]}, with one of {', '.join(_NARROWING)} at most."
        )


def _check_possible(names: Sequence[str], possible: Sequence[str], what: str) -> None:
    if not names:
        raise ConfigurationError(f"The key usage is missing; {what} may have {', '.join(possible)}.")
    for name in names:
        if name not in possible:
            raise ConfigurationError(
                f"{name!r} is not a key usage of {what}; they may have {', '.join(possible)}."
            )
