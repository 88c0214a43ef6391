"""What a profile puts into the two certificates of a pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.errors import ConfigurationError
from keyark.keys import der as _der
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType
from keyark.x509.distribution import Distribution, object_identifier
from keyark.x509.key_usages import (
    SIGNING_USAGES,
    check_encryption_usage,
    check_signing_usage,
    encryption_usages,
    usage_extension,
)
from keyark.x509.subjects import SubjectTemplate

_USER_PRINCIPAL_NAME: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

EXTENDED_KEY_USAGES: Final = {
    "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "codeSigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "documentSigning": x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"),
    "msSmartcardLogin": ExtendedKeyUsageOID.SMARTCARD_LOGON,
    "msEFS": x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.4"),
}
"""The extended key usages that have a name; others are written as dotted numbers."""

_SIGNING_ONLY: Final = frozenset(
    EXTENDED_KEY_USAGES[name] for name in ("clientAuth", "codeSigning", "documentSigning", "msSmartcardLogin")
)
_NEVER: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth is for servers",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning speaks for the CA",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping is for time-stamping authorities",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage is for all of these",
}

CRITICAL_NAMES: Final[Mapping[type[x509.ExtensionType], str]] = {
    x509.KeyUsage: "keyUsage",
    x509.ExtendedKeyUsage: "extendedKeyUsage",
    x509.SubjectAlternativeName: "subjectAltName",
    x509.CertificatePolicies: "certificatePolicies",
}
"""The extensions that a profile may mark critical; RFC 5280 has all others not critical."""


class ProfileContentError(ConfigurationError):
    """What a profile would put into certificates is not possible; ``key`` is the key of its configuration."""

    def __init__(self, message: str, *, key: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata=metadata)
        self.key = key


def _rfc822_name(email: str) -> bytes:
    return _der.implicit(1, email.encode("ascii"))


def user_principal_name(email: str) -> x509.OtherName:
    """Return the name by which Windows knows an account, which is an e-mail address here."""
    return x509.OtherName(_USER_PRINCIPAL_NAME, _der.utf8_string(email))


def _user_principal_name(email: str) -> bytes:
    oid = _der.object_identifier(_USER_PRINCIPAL_NAME.dotted_string)
    return _der.explicit(0, oid + _der.explicit(0, _der.utf8_string(email)))


ALTERNATIVE_NAMES: Final[Mapping[str, Callable[[str], bytes]]] = {
    "email": _rfc822_name,
    "upn": _user_principal_name,
}
"""What the subject alternative name may hold, all made of the e-mail address: its GeneralName, DER."""


@dataclass(frozen=True, kw_only=True)
class RoleProfile:
    """What one of the two certificates is for; an empty key usage stands for what is usual for the key type."""

    key_types: tuple[str, ...]
    key_usage: tuple[str, ...] = ()
    extended_key_usage: tuple[str, ...] = ("emailProtection",)

    def permits(self, key_type: KeyType) -> bool:
        """Whether keys of this type are certified in this role."""
        return key_type.value in self.key_types

    def usage(self, key_type: KeyType) -> x509.KeyUsage:
        """Return the key usage extension for a key of this type."""
        return usage_extension(self.key_usage or encryption_usages(key_type)[:1])

    def extended_key_usage_extension(self) -> x509.ExtendedKeyUsage:
        """Return the extended key usage extension."""
        return x509.ExtendedKeyUsage([extended_key_usage(name) for name in self.extended_key_usage])


def _names(key_types: tuple[KeyType, ...]) -> tuple[str, ...]:
    return tuple(key_type.value for key_type in key_types)


@dataclass(frozen=True, kw_only=True)
class EndEntityProfile:
    """What stands in every pair of a profile, each value as configuration writes it.

    Raises ProfileContentError where a value is not possible, or not together with another.
    """

    subject: tuple[str, ...] = ("CN={common_name}",)
    alternative_names: tuple[str, ...] = ("email",)
    signing: RoleProfile = RoleProfile(key_types=_names(SIGNING_KEY_TYPES), key_usage=SIGNING_USAGES)
    encryption: RoleProfile = RoleProfile(key_types=_names(ENCRYPTION_KEY_TYPES))
    critical: tuple[str, ...] = ("keyUsage",)
    distribution: Distribution = field(default_factory=Distribution)

    def __post_init__(self) -> None:
        for key, check in (
            ("subject", lambda: SubjectTemplate(self.subject)),
            ("alternative_names", lambda: _check_alternative_names(self.alternative_names)),
            ("signing_key_types", lambda: _check_key_types(self.signing, SIGNING_KEY_TYPES, "signing")),
            (
                "encryption_key_types",
                lambda: _check_key_types(self.encryption, ENCRYPTION_KEY_TYPES, "encryption"),
            ),
            ("signing_key_usage", lambda: check_signing_usage(self.signing.key_usage)),
            ("encryption_key_usage", self._check_encryption_usage),
            ("signing_extended_key_usage", lambda: _check_extended_key_usage(self.signing)),
            ("encryption_extended_key_usage", self._check_encryption_extended_key_usage),
            ("critical", self._check_critical),
        ):
            try:
                check()
            except ConfigurationError as error:
                raise ProfileContentError(error.message, key=key) from None

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> EndEntityProfile:
        """Return a profile that went through ``dataclasses.asdict`` and JSON."""
        roles = (
            RoleProfile(**{name: tuple(value) for name, value in values[role].items()})
            for role in ("signing", "encryption")
        )
        signing, encryption = roles
        return cls(
            subject=tuple(values["subject"]),
            alternative_names=tuple(values["alternative_names"]),
            signing=signing,
            encryption=encryption,
            critical=tuple(values["critical"]),
            distribution=Distribution(**{name: tuple(v) for name, v in values["distribution"].items()}),
        )

    def _check_encryption_usage(self) -> None:
        if self.encryption.key_usage:
            for name in self.encryption.key_types:
                check_encryption_usage(self.encryption.key_usage, KeyType(name))

    def _check_encryption_extended_key_usage(self) -> None:
        _check_extended_key_usage(self.encryption)
        for name in self.encryption.extended_key_usage:
            if extended_key_usage(name) in _SIGNING_ONLY:
                raise ConfigurationError(f"{name} needs a key that signs; the encryption key does not.")

    def _check_critical(self) -> None:
        for name in self.critical:
            if name not in CRITICAL_NAMES.values():
                raise ConfigurationError(
                    f"The extension {name!r} cannot be marked critical; these can: "
                    f"{', '.join(CRITICAL_NAMES.values())}."
                )
        if not self.subject and "subjectAltName" not in self.critical:
            raise ConfigurationError(
                "The subject is empty, so subjectAltName has to be critical (RFC 5280 §4.1.2.6)."
            )


def extended_key_usage(name: str) -> x509.ObjectIdentifier:
    """Return the OID of an extended key usage, by its name or its dotted numbers; raises ConfigurationError."""
    if name in EXTENDED_KEY_USAGES:
        return EXTENDED_KEY_USAGES[name]
    if not name[:1].isdigit():
        raise ConfigurationError(
            f"{name!r} is not an extended key usage; give one of {', '.join(EXTENDED_KEY_USAGES)}, or "
            "dotted numbers."
        )
    return object_identifier(name)


def _check_extended_key_usage(role: RoleProfile) -> None:
    if not role.extended_key_usage:
        raise ConfigurationError(
            "A certificate without extended key usage could be used for anything; give at least one."
        )
    found = [extended_key_usage(name) for name in role.extended_key_usage]
    for oid in found:
        if oid in _NEVER:
            raise ConfigurationError(f"{_NEVER[oid]}; a person's certificate never has it.")
    if len(set(found)) < len(found):
        raise ConfigurationError("An extended key usage is given twice; give each once.")


def _check_key_types(role: RoleProfile, fitting: tuple[KeyType, ...], name: str) -> None:
    if not role.key_types and name == "signing":
        raise ConfigurationError(
            f"There is no {name} key type; give at least one of {', '.join(_names(fitting))}."
        )
    for key_type in role.key_types:
        if key_type not in _names(fitting):
            raise ConfigurationError(f"{key_type} is no {name} key type; {', '.join(_names(fitting))} are.")


def _check_alternative_names(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in ALTERNATIVE_NAMES:
            raise ConfigurationError(
                f"{name!r} is not an alternative name; give {', '.join(ALTERNATIVE_NAMES)}."
            )
    if "email" not in names or len(set(names)) < len(names):
        raise ConfigurationError(
            "Every certificate has the e-mail address as alternative name, and each name once."
        )
