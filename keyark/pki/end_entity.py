"""The pair of certificates of an enrollment, made the fast way: everything constant is encoded once.

A certificate is assembled from DER pieces and signed directly. What comes out is, byte for byte, what
x509.CertificateBuilder makes of the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyark.errors import InvalidInputError
from keyark.pki import _der
from keyark.pki.authority import key_usage
from keyark.pki.certificates import IssuerValidityError, Validity
from keyark.pki.distribution import Distribution
from keyark.pki.issuer_keys import check_issuer, signature_scheme, tbs_signer
from keyark.pki.key_types import (
    ENCRYPTION_KEY_TYPES,
    SIGNING_KEY_TYPES,
    KeyType,
    SigningPrivateKey,
    check_key_type,
)
from keyark.pki.names import check_name
from keyark.pki.serials import check_serial
from keyark.pki.spki import key_identifier, spki_key_type

_VERSION_3: Final = _der.explicit(0, _der.unsigned_integer(b"\x02"))
_COMMON_NAME: Final = _der.object_identifier(NameOID.COMMON_NAME.dotted_string)
_ORGANIZATION: Final = _der.object_identifier(NameOID.ORGANIZATION_NAME.dotted_string)
_SUBJECT_KEY_IDENTIFIER: Final = _der.object_identifier("2.5.29.14")
_SUBJECT_ALTERNATIVE_NAME: Final = _der.object_identifier("2.5.29.17")
_KEY_AGREEMENT: Final = (KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_P521, KeyType.X25519)


@dataclass(frozen=True, kw_only=True)
class EndEntityProfile:
    """What stands in every pair of a profile: organisation ("" for none), URLs and policies."""

    organization: str = ""
    distribution: Distribution = field(default_factory=Distribution)

    def __post_init__(self) -> None:
        if self.organization:
            check_name(self.organization, field="organization")


@dataclass(frozen=True, kw_only=True)
class IssuedPair:
    """Both certificates of an enrollment, DER."""

    signing: bytes
    encryption: bytes


def signing_usage() -> x509.KeyUsage:
    """Return the key usage of signing certificates (S/MIME Baseline Requirements §7.1.2.3 e)."""
    return key_usage("digital_signature", "content_commitment")


def encryption_usage(key_type: KeyType) -> x509.KeyUsage:
    """Return the key usage of encryption certificates: key agreement for EC and X25519, else encipherment.

    S/MIME Baseline Requirements §7.1.2.3 e; RFC 8410 §5; RFC 9935 §5 for ML-KEM.
    """
    return key_usage("key_agreement" if key_type in _KEY_AGREEMENT else "key_encipherment")


class EndEntityIssuer:
    """Issues pairs under one CA certificate and one profile; holds the CA's private key.

    Raises IssuerKeyMismatchError and UnsupportedKeyError when it is made.
    """

    def __init__(
        self, *, certificate: x509.Certificate, private_key: SigningPrivateKey, profile: EndEntityProfile
    ) -> None:
        check_issuer(certificate, private_key)
        self._sign = tbs_signer(private_key)
        self._algorithm = signature_scheme(private_key).algorithm_identifier
        self._validity = Validity.of(certificate)
        self._algorithm_and_issuer = self._algorithm + certificate.subject.public_bytes()
        self._organization = _attribute(_ORGANIZATION, profile.organization) if profile.organization else b""
        self._authority_identifier = _extension(_authority_key_identifier(certificate))
        tail = b"".join(_extension(value) for value in _constant_extensions(profile.distribution))
        self._signing_extensions = _with_usages(SIGNING_KEY_TYPES, lambda _: signing_usage(), tail)
        self._encryption_extensions = _with_usages(ENCRYPTION_KEY_TYPES, encryption_usage, tail)

    def issue_pair(
        self,
        *,
        common_name: str,
        email: str,
        signing_spki: bytes,
        encryption_spki: bytes,
        signing_serial: bytes,
        encryption_serial: bytes,
        validity: Validity,
    ) -> IssuedPair:
        """Sign both certificates; names and SPKIs (DER) are those of a parsed statement.

        Serial numbers are encoded as in ``keyark.pki.serials``. Raises InvalidInputError, UnsupportedKeyError
        where a key does not fit its role, SpkiNotCanonicalError, and IssuerValidityError where the validity
        is not inside the CA certificate's.
        """
        if signing_serial == encryption_serial or signing_spki == encryption_spki:
            raise InvalidInputError("Both certificates have the same serial number or key.", field="serial")
        if not self._validity.contains(validity):
            raise IssuerValidityError(
                "The validity does not lie inside the issuing certificate's; shorten it."
            )
        names = (
            self._algorithm_and_issuer
            + _der.sequence(_der.point_in_time(validity.not_before), _der.point_in_time(validity.not_after))
            + _der.sequence(self._organization, _attribute(_COMMON_NAME, common_name))
        )
        address = _rfc822_name(email)
        return IssuedPair(
            signing=self._issue(signing_serial, names, signing_spki, address, self._signing_extensions),
            encryption=self._issue(
                encryption_serial, names, encryption_spki, address, self._encryption_extensions
            ),
        )

    def _issue(
        self, serial: bytes, names: bytes, spki: bytes, address: bytes, constant: Mapping[KeyType, bytes]
    ) -> bytes:
        check_serial(serial)
        key_type = spki_key_type(spki)
        if key_type not in constant:
            check_key_type(key_type, tuple(constant))
        identifier = _raw_extension(_SUBJECT_KEY_IDENTIFIER, _der.octet_string(key_identifier(spki)))
        extensions = _der.sequence(self._authority_identifier, identifier, address, constant[key_type])
        tbs = _der.sequence(
            _VERSION_3, _der.unsigned_integer(serial), names, spki, _der.explicit(3, extensions)
        )
        return _der.sequence(tbs, self._algorithm, _der.bit_string(self._sign(tbs)))


def _authority_key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _constant_extensions(distribution: Distribution) -> list[x509.ExtensionType]:
    return [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), *distribution.extensions()]


def _attribute(oid: bytes, text: str) -> bytes:
    """One relative distinguished name of one UTF8String."""
    return _der.set_of_one(_der.sequence(oid, _der.utf8_string(text)))


def _with_usages(
    key_types: Sequence[KeyType], usage: Callable[[KeyType], x509.KeyUsage], tail: bytes
) -> dict[KeyType, bytes]:
    """The extensions after the subject's own, by key type: key usage, then what the profile always has."""
    return {key_type: _critical_extension(usage(key_type)) + tail for key_type in key_types}


def _rfc822_name(email: str) -> bytes:
    name = _der.sequence(_der.implicit(1, email.encode("ascii")))
    return _raw_extension(_SUBJECT_ALTERNATIVE_NAME, name)


def _raw_extension(oid: bytes, value: bytes) -> bytes:
    return _der.sequence(oid, _der.octet_string(value))


def _critical_extension(value: x509.ExtensionType) -> bytes:
    oid = _der.object_identifier(value.oid.dotted_string)
    return _der.sequence(oid, _der.TRUE, _der.octet_string(value.public_bytes()))


def _extension(value: x509.ExtensionType) -> bytes:
    return _raw_extension(_der.object_identifier(value.oid.dotted_string), value.public_bytes())
