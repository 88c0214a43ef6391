"""Whether a delivered pair of certificates is the one that was asked for; the client takes no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from keyark.errors import KeyarkError, Kind
from keyark.keys.key_types import PrivateKey
from keyark.keys.spki import encode_spki
from keyark.statements.enrollment import Statement
from keyark.v1.common_pb2 import CertificatePair
from keyark.x509.certificates import load_certificate
from keyark.x509.chains import CertificateChainError, KnownChains, verify_chain
from keyark.x509.end_entity_profile import user_principal_name
from keyark.x509.key_usages import SIGNING_USAGES, encryption_usages, usage_names
from keyark.x509.serials import serial_text
from keyark.x509.subjects import CONSTANT_ATTRIBUTES

NO_CHAINS: Final = KnownChains(paths=())


class CertificateMismatchError(KeyarkError):
    """A certificate is not for the key, the owner or the role that it should be for."""

    reason = "CERTIFICATE_MISMATCH"
    kind = Kind.PRECONDITION
    is_final = True


@dataclass(frozen=True, kw_only=True)
class VerifiedPair:
    """Both certificates, and the path from them to the trust anchor, which is its last.

    ``encryption`` is None where the statement asks for a signing certificate alone.
    """

    signing: x509.Certificate
    encryption: x509.Certificate | None
    chain: tuple[x509.Certificate, ...]


def check_key_of(private_key: PrivateKey, certificate: x509.Certificate, *, place: Path) -> None:
    """Raise CertificateMismatchError where the key that lies at ``place`` is not the one of a certificate."""
    if encode_spki(private_key.public_key()) != encode_spki(certificate.public_key()):
        raise CertificateMismatchError(
            f"The key in {place} does not belong to certificate {serial_text(certificate.serial_number)}. "
            "Look for that key in a copy of the folder, or have the encryption key recovered. Otherwise, "
            "revoke the certificates."
        )


def verify_pair(
    pair: CertificatePair,
    statement: Statement,
    *,
    anchors: Sequence[x509.Certificate],
    at: int,
    known: KnownChains = NO_CHAINS,
) -> VerifiedPair:
    """Check that both certificates are what the statement asks for and chain up to an anchor at ``at``.

    ``at`` is in seconds UTC. Where the chain that came along leads to no anchor, since it was in force before, one of
    those that are ``known`` is taken. Raises CertificateMismatchError, CertificateChainError, CertificateFormatError
    and UnsupportedKeyError.
    """
    signing = load_certificate(pair.signing_certificate)
    chain = [load_certificate(der) for der in pair.chain]
    check_signing_certificate(signing, statement)

    def path_of(certificate: x509.Certificate) -> list[x509.Certificate]:
        try:
            return verify_chain(certificate, intermediates=chain, anchors=anchors, at=at)[1:]
        except CertificateChainError as refusal:
            try:
                return known.verify(certificate, at=at)[1:]
            except CertificateChainError:
                raise refusal from None

    path = path_of(signing)
    if statement.encryption_key_type is None:
        if pair.encryption_certificate:
            raise CertificateMismatchError("The answer has an encryption certificate that was not requested.")
        return VerifiedPair(signing=signing, encryption=None, chain=tuple(path))
    encryption = load_certificate(pair.encryption_certificate)
    check_encryption_certificate(encryption, statement)
    if path_of(encryption) != path:
        raise CertificateMismatchError("The two certificates are from different issuers; a pair has one.")
    return VerifiedPair(signing=signing, encryption=encryption, chain=tuple(path))


def check_signing_certificate(certificate: x509.Certificate, statement: Statement) -> None:
    """Check key, owner and role of a signing certificate; its chain is not looked at.

    Raises CertificateMismatchError.
    """
    _check(certificate, statement, statement.signing_spki, SIGNING_USAGES)


def check_encryption_certificate(certificate: x509.Certificate, statement: Statement) -> None:
    """Check key, owner and role of an encryption certificate; its chain is not looked at.

    Raises CertificateMismatchError.
    """
    usages = encryption_usages(statement.archived_key_type)
    _check(certificate, statement, statement.encryption_spki, usages)


def _check(certificate: x509.Certificate, statement: Statement, spki: bytes, usages: Sequence[str]) -> None:
    if encode_spki(certificate.public_key()) != spki:
        raise CertificateMismatchError("The certificate is for a public key that the request does not have.")
    _check_subject(certificate.subject, statement)
    extensions = {extension.oid: extension.value for extension in certificate.extensions}
    _check_alternative_names(extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME), statement)
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not _is_among(usage_names(usage), usages):
        raise CertificateMismatchError("The certificate's key usage is not that of its role.")
    basic = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise CertificateMismatchError("The certificate is a CA's; a person's is not.")


def _check_subject(subject: x509.Name, statement: Statement) -> None:
    """Beside the person's own names it holds constants of the organisation; anything else could be another's name."""
    for attribute in subject:
        if attribute.oid == NameOID.COMMON_NAME:
            if attribute.value not in (statement.common_name, statement.email):
                raise CertificateMismatchError("The certificate's common name is not the one in the request.")
        elif attribute.oid == NameOID.EMAIL_ADDRESS:
            if attribute.value != statement.email:
                raise CertificateMismatchError(
                    "The address in the certificate's subject is not the one in the request."
                )
        elif attribute.oid not in CONSTANT_ATTRIBUTES:
            raise CertificateMismatchError(
                f"The certificate's subject has the attribute {attribute.oid.dotted_string}, which no profile has."
            )


def _check_alternative_names(names: x509.ExtensionType | None, statement: Statement) -> None:
    """The e-mail address stands there, and nothing that is not made of it."""
    if not isinstance(names, x509.SubjectAlternativeName):
        raise CertificateMismatchError("The certificate has no address.")
    addresses = [name.value for name in names if isinstance(name, x509.RFC822Name)]
    others = [name for name in names if not isinstance(name, x509.RFC822Name)]
    if addresses != [statement.email] or (others and others != [user_principal_name(statement.email)]):
        raise CertificateMismatchError("The certificate's addresses are not the one in the request.")


def _is_among(names: Sequence[str], usages: Sequence[str]) -> bool:
    """Whether the usages are some of these, and at least one."""
    return bool(names) and set(names) <= set(usages)
