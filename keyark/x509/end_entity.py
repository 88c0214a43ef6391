"""The pair of certificates of an enrollment, made the fast way: everything constant is encoded once.

A certificate is assembled from DER pieces and signed directly. What comes out is, byte for byte, what
x509.CertificateBuilder makes of the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from keyark.errors import InvalidInputError
from keyark.keys import der as _der
from keyark.keys.key_types import (
    ENCRYPTION_KEY_TYPES,
    SIGNING_KEY_TYPES,
    KeyType,
    SigningPrivateKey,
    check_key_type,
)
from keyark.keys.signatures import check_issuer, signature_scheme, tbs_signer
from keyark.keys.spki import key_identifier, spki_key_type
from keyark.x509.certificates import IssuerValidityError, Validity
from keyark.x509.end_entity_profile import ALTERNATIVE_NAMES, CRITICAL_NAMES, EndEntityProfile, RoleProfile
from keyark.x509.serials import check_serial
from keyark.x509.subjects import SubjectTemplate

_VERSION_3: Final = _der.explicit(0, _der.unsigned_integer(b"\x02"))
_SUBJECT_KEY_IDENTIFIER: Final = _der.object_identifier("2.5.29.14")


@dataclass(frozen=True, kw_only=True)
class IssuedPair:
    """Both certificates of an enrollment, DER."""

    signing: bytes
    encryption: bytes


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
        self._subject = SubjectTemplate(profile.subject).compile()
        self._alternative_names = _alternative_names(profile)
        self._authority_identifier = _extension(_authority_key_identifier(certificate))
        self._signing_extensions = _by_key_type(profile, profile.signing, SIGNING_KEY_TYPES)
        self._encryption_extensions = _by_key_type(profile, profile.encryption, ENCRYPTION_KEY_TYPES)

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

        Without an encryption key its serial number is empty as well, and so is the encryption certificate.

        Serial numbers are encoded as in ``keyark.x509.serials``. Raises InvalidInputError, UnsupportedKeyError
        where a key does not fit its role, SpkiNotCanonicalError, and IssuerValidityError where the validity
        is not inside the CA certificate's.
        """
        if bool(encryption_spki) != bool(encryption_serial):
            raise InvalidInputError(
                "An encryption certificate has a key and a serial number.", field="serial"
            )
        if signing_serial == encryption_serial or signing_spki == encryption_spki:
            raise InvalidInputError("Both certificates have the same serial number or key.", field="serial")
        if not self._validity.contains(validity):
            raise IssuerValidityError(
                "The certificate would be valid outside the issuing certificate's validity; shorten it."
            )
        names = (
            self._algorithm_and_issuer
            + _der.sequence(_der.encode_time(validity.not_before), _der.encode_time(validity.not_after))
            + self._subject(common_name, email)
        )
        address = self._alternative_names(email)
        return IssuedPair(
            signing=self._issue(signing_serial, names, signing_spki, address, self._signing_extensions),
            encryption=(
                self._issue(encryption_serial, names, encryption_spki, address, self._encryption_extensions)
                if encryption_spki
                else b""
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


def _by_key_type(
    profile: EndEntityProfile, role: RoleProfile, key_types: Sequence[KeyType]
) -> dict[KeyType, bytes]:
    """The extensions after the subject's own, by key type: key usage, then what the profile always has."""
    tail = [role.extended_key_usage_extension(), *profile.distribution.extensions()]
    return {
        key_type: b"".join(_extension(value, profile.critical) for value in (role.usage(key_type), *tail))
        for key_type in key_types
        if role.permits(key_type)
    }


def _alternative_names(profile: EndEntityProfile) -> Callable[[str], bytes]:
    """The function that makes the subject alternative name of an e-mail address."""
    start = _der.object_identifier(x509.SubjectAlternativeName.oid.dotted_string)
    start += _der.TRUE if "subjectAltName" in profile.critical else b""
    makers = [ALTERNATIVE_NAMES[name] for name in profile.alternative_names]

    def extension(email: str) -> bytes:
        names = _der.sequence(*(make(email) for make in makers))
        return _der.sequence(start, _der.octet_string(names))

    return extension


def _raw_extension(oid: bytes, value: bytes) -> bytes:
    return _der.sequence(oid, _der.octet_string(value))


def _extension(value: x509.ExtensionType, critical: Sequence[str] = ()) -> bytes:
    flag = _der.TRUE if CRITICAL_NAMES.get(type(value)) in critical else b""
    oid = _der.object_identifier(value.oid.dotted_string)
    return _der.sequence(oid, flag, _der.octet_string(value.public_bytes()))
