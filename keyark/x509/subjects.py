"""Subject templates: what stands in the subject of every certificate of a profile.

A template is a list of attributes in the order of the certificate, the most general first: "C=DE",
"O=Example Ltd", "CN={common_name}". A value is constant, or one placeholder for what the statement asks for, so that
no certificate names anybody but the statement's person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from keyark.errors import ConfigurationError, InvalidInputError
from keyark.keys import der as _der
from keyark.x509.names import MAX_NAME_CHARACTERS, check_name

COMMON_NAME: Final = "{common_name}"
EMAIL: Final = "{email}"

_UTF8: Final = 0x0C
_PRINTABLE: Final = 0x13
_IA5: Final = 0x16


@dataclass(frozen=True)
class _AttributeType:
    """An attribute of subjects: its OID, its string type, and which placeholders it takes; none means a constant."""

    oid: x509.ObjectIdentifier
    string_type: int = _UTF8
    placeholders: tuple[str, ...] = ()


_TYPES: Final = {
    "C": _AttributeType(NameOID.COUNTRY_NAME, _PRINTABLE),
    "DC": _AttributeType(NameOID.DOMAIN_COMPONENT, _IA5),
    "ST": _AttributeType(NameOID.STATE_OR_PROVINCE_NAME),
    "L": _AttributeType(NameOID.LOCALITY_NAME),
    "O": _AttributeType(NameOID.ORGANIZATION_NAME),
    "organizationIdentifier": _AttributeType(NameOID.ORGANIZATION_IDENTIFIER),
    "OU": _AttributeType(NameOID.ORGANIZATIONAL_UNIT_NAME),
    "CN": _AttributeType(NameOID.COMMON_NAME, placeholders=(COMMON_NAME, EMAIL)),
    "emailAddress": _AttributeType(NameOID.EMAIL_ADDRESS, _IA5, (EMAIL,)),
}
CONSTANT_ATTRIBUTES: Final = frozenset(kind.oid for kind in _TYPES.values() if not kind.placeholders)
"""What a subject may hold beside the person's own names."""


@dataclass(frozen=True)
class SubjectTemplate:
    """The attributes of a subject, as written; raises ConfigurationError where one is not possible."""

    attributes: tuple[str, ...] = ("CN={common_name}",)

    def __post_init__(self) -> None:
        for attribute in self.attributes:
            _check(*_split(attribute))
        types = [_split(attribute)[0] for attribute in self.attributes]
        for single in ("C", "O", "organizationIdentifier", "CN", "emailAddress"):
            if types.count(single) > 1:
                raise ConfigurationError(f"The subject has {single} more than once; give it once.")

    def check(self, email: str) -> None:
        """Raise InvalidInputError where an e-mail address is too long to be a common name, if it is to be one."""
        if f"CN={EMAIL}" in self.attributes and len(email) > MAX_NAME_CHARACTERS:
            raise InvalidInputError(
                f"The e-mail address is the common name under this profile, so it has at most "
                f"{MAX_NAME_CHARACTERS} characters.",
                field="email",
            )

    def compile(self) -> Callable[[str, str], bytes]:
        """Return the function that makes the subject (DER) of a common name and an e-mail address."""
        parts = [_compile(*_split(attribute)) for attribute in self.attributes]

        def subject(common_name: str, email: str) -> bytes:
            return _der.sequence(*(part(common_name, email) for part in parts))

        return subject


def _split(attribute: str) -> tuple[str, str]:
    name, equals, value = attribute.partition("=")
    if not equals or name not in _TYPES:
        raise ConfigurationError(
            f"{attribute!r} is not a subject attribute; write NAME=VALUE with one of {', '.join(_TYPES)}."
        )
    return name, value


def _check(name: str, value: str) -> None:
    kind = _TYPES[name]
    if kind.placeholders:
        if value not in kind.placeholders:
            raise ConfigurationError(f"{name} is the person's own; write {' or '.join(kind.placeholders)}.")
        return
    try:
        check_name(value, field=name)
    except InvalidInputError as error:
        raise ConfigurationError(f"{name}: {error.message}") from None
    if "{" in value or "}" in value:
        raise ConfigurationError(f"{name} takes no placeholder; write a text without braces.")
    if name == "C" and not (len(value) == 2 and value.isascii() and value.isupper() and value.isalpha()):
        raise ConfigurationError("C is a country's two capital letters (ISO 3166).")
    if kind.string_type == _IA5 and not value.isascii():
        raise ConfigurationError(f"{name} takes ASCII only.")


def _compile(name: str, value: str) -> Callable[[str, str], bytes]:
    kind = _TYPES[name]
    oid = _der.object_identifier(kind.oid.dotted_string)

    def encode(text: str) -> bytes:
        return _der.set_of(_der.sequence(oid, _der.tlv(kind.string_type, text.encode())))

    if value == COMMON_NAME:
        return lambda common_name, _: encode(common_name)
    if value == EMAIL:
        return lambda _, email: encode(email)
    constant = encode(value)
    return lambda _, __: constant
