"""Identities that the internal CA revoked: the list that it signs (RFC 5280 §5), and what is refused because of it.

A list only grows: a later one that lacks an entry of an earlier one is refused. So neither an older file nor an
authority that was restored from a backup brings a revoked identity back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.errors import KeyarkError, Kind
from keyark.files import read_file
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.spki import public_key_id
from keyark.x509.serials import serial_text

IDENTITY_LIST: Final = "revoked-identities.crl"
"""What the file is called where no configuration names another."""
MAX_SIZE: Final = 8 << 20
"""Bytes of a file with lists."""

_END: Final = b"-----END X509 CRL-----"


class IdentityRevokedError(KeyarkError):
    """The internal CA has revoked the certificate of this identity."""

    reason = "IDENTITY_REVOKED"
    kind = Kind.UNAUTHENTICATED


class IdentityListError(KeyarkError):
    """A list of revoked identities is malformed, or not one of the internal CA."""

    reason = "IDENTITY_LIST"
    kind = Kind.PRECONDITION


class OlderIdentityListError(IdentityListError):
    """A list of revoked identities is older than one that was taken before, or takes a revocation back."""

    reason = "OLDER_IDENTITY_LIST"


@dataclass(frozen=True, kw_only=True)
class IdentityList:
    """A list whose signature was verified; ``issuer`` (32 bytes) is the SHA-256 of the signer's SPKI."""

    issuer: bytes
    number: int
    der: bytes = field(repr=False)
    serials: frozenset[int] = field(repr=False)


class RevokedIdentities:
    """The certificates of the internal CA that are not in force any more, as far as this process knows."""

    def __init__(self, anchors: Sequence[x509.Certificate]) -> None:
        """Believe lists of these internal CAs; nothing is revoked before the first is taken."""
        self._anchors = tuple(anchors)
        self._lists: dict[bytes, IdentityList] = {}
        self._serials: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no list was taken yet."""
        return not self._lists

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers of all that is revoked."""
        return self._serials

    def restore(self, lists: Iterable[bytes]) -> None:
        """Take lists (DER) that were taken before; those of CAs that are believed no more are left out."""
        for der in lists:
            with contextlib.suppress(IdentityListError):
                self.take(_load(der, self._anchors))

    def check(self, certificate: x509.Certificate) -> None:
        """Raise IdentityRevokedError where this certificate of the internal CA is revoked."""
        if certificate.serial_number in self._serials:
            raise IdentityRevokedError(
                f"The identity's certificate with the serial number {serial_text(certificate.serial_number)} is "
                "revoked; have a new identity issued, with a new key."
            )

    def newer(self, data: bytes) -> list[IdentityList]:
        """Return the lists of a file (PEM, or one in DER) that were not taken yet.

        Raises IdentityListError for what is no list of these CAs, and OlderIdentityListError for one that lags behind.
        """
        read = _load(data, self._anchors)
        if not {one.issuer for one in read}.issuperset(self._lists):
            raise OlderIdentityListError(
                "The file lacks a list of revoked identities that this service has used before; copy the "
                "authority's list again."
            )
        fresh = [one for one in read if one != self._lists.get(one.issuer)]
        for one in fresh:
            _check_successor(one, self._lists.get(one.issuer))
        return fresh

    def take(self, lists: Iterable[IdentityList]) -> frozenset[int]:
        """Refuse from now on what these lists name too; returns the serial numbers that are new."""
        self._lists |= {one.issuer: one for one in lists}
        before = self._serials
        self._serials = frozenset().union(*(one.serials for one in self._lists.values()))
        return self._serials - before


NOBODY_REVOKED: Final = RevokedIdentities(())
"""For words that were accepted before their signer was revoked, where others checked that: they stay as they are."""


def load_revoked(path: Path, anchors: Sequence[x509.Certificate]) -> RevokedIdentities:
    """Return what a file says, nothing where there is none; raises IdentityListError and UnreadableFileError."""
    revoked = RevokedIdentities(anchors)
    if path.exists():
        revoked.take(revoked.newer(read_file(path, max_size=MAX_SIZE)))
    return revoked


def _check_successor(read: IdentityList, present: IdentityList | None) -> None:
    if present is None:
        return
    if read.number <= present.number:
        raise OlderIdentityListError(
            f"The list of revoked identities has number {read.number}, but this service has used number "
            f"{present.number} before; copy the newest list from the authority."
        )
    if not read.serials.issuperset(present.serials):
        raise OlderIdentityListError(
            f"List {read.number} of revoked identities lacks certificates that were revoked before. If "
            "the authority was restored from a backup, revoke them there again."
        )


def _load(data: bytes, anchors: Sequence[x509.Certificate]) -> list[IdentityList]:
    if len(data) > MAX_SIZE:
        raise IdentityListError(f"The list of revoked identities has more than {MAX_SIZE} bytes.")
    if _END not in data:
        return [_verified(_parsed(data, Encoding.DER), anchors)]
    *blocks, rest = data.split(_END)
    if rest.strip():
        raise IdentityListError("The file has more data after the list of revoked identities; copy it again.")
    lists = [_verified(_parsed(block + _END, Encoding.PEM), anchors) for block in blocks]
    if len({one.issuer for one in lists}) != len(lists):
        raise IdentityListError("The file holds two lists of one CA; copy the file again.")
    return lists


def _parsed(data: bytes, encoding: Encoding) -> x509.CertificateRevocationList:
    try:
        if encoding is Encoding.DER:
            return x509.load_der_x509_crl(data)
        return x509.load_pem_x509_crl(data)
    except PARSING_ERRORS:
        raise IdentityListError(
            "The file has no list of revoked identities (an X.509 CRL); copy the authority's list again."
        ) from None


def _verified(crl: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate]) -> IdentityList:
    """Return what a list says once an internal CA signed it; a critical extension says what is not understood here."""
    signer = next((anchor for anchor in anchors if _is_signed_by(crl, anchor)), None)
    if signer is None:
        raise IdentityListError(
            "The list of revoked identities is not signed by the internal CA; copy the authority's list again."
        )
    try:
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        extensions = [*crl.extensions, *(one for entry in crl for one in entry.extensions)]
        serials = frozenset(entry.serial_number for entry in crl)
    except PARSING_ERRORS:
        raise IdentityListError("The list of revoked identities has no number or is malformed.") from None
    if any(extension.critical for extension in extensions):
        raise IdentityListError(
            "The list of revoked identities is not a full list; copy the authority's full list."
        )
    return IdentityList(
        issuer=public_key_id(signer.public_key()),
        number=number,
        der=crl.public_bytes(Encoding.DER),
        serials=serials,
    )


def _is_signed_by(crl: x509.CertificateRevocationList, anchor: x509.Certificate) -> bool:
    try:
        if crl.issuer != anchor.subject:
            return False
        return crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]  # others raise TypeError
    except PARSING_ERRORS:
        return False
