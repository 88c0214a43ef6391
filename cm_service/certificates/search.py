"""Finds certificates by name, e-mail address, serial number, key, state, expiry and profile, a page at a time.

The narrowest index that the filter allows gives candidates in the order of its keys; what else the filter says is
held against each. So a page costs the way to its first row and what it looks at, and never the number of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cm_service.certificates.index import (
    Standing,
    email_prefix,
    expiry_key,
    expiry_prefix,
    name_prefix,
    standing,
)
from cm_service.records import INDEX, PAIRS, SERIALS, describe_pair, is_issued, read_pair
from keyark.errors import InvalidInputError
from keyark.records.v1.cm_pb2 import SerialRecord
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service.checks import key_uses
from keyark.service.id_prefix import IdPrefix
from keyark.service.paging import Page
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.store import ReadTransaction
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, CertificateState
from keyark.x509.names import folded_name
from keyark.x509.serials import check_serial

MAX_EXAMINED: Final = 2000
"""Candidates that one page looks at; a filter that few of them match gives short pages."""

_STANDINGS: Final = {
    CertificateState.CERTIFICATE_STATE_UNSPECIFIED: tuple(Standing),
    CertificateState.CERTIFICATE_STATE_VALID: (Standing.IN_FORCE,),
    CertificateState.CERTIFICATE_STATE_EXPIRED: (Standing.IN_FORCE,),
    CertificateState.CERTIFICATE_STATE_REVOKED: (Standing.REVOKED,),
    CertificateState.CERTIFICATE_STATE_ON_HOLD: (Standing.ON_HOLD,),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Rows of a table that are candidates: their keys start with ``prefix``; ``low`` and ``high`` follow it.

    ``low`` is below the first row's rest and ``high`` above the last one's; None is no bound. Where ``standing``
    is given, only certificates of this standing are meant by a row.
    """

    table: str
    prefix: bytes
    low: bytes | None = None
    high: bytes | None = None
    standing: Standing | None = None

    def rows(self, txn: ReadTransaction, after: bytes | None, limit: int) -> list[bytes]:
        """Return up to ``limit`` keys after a key."""
        start = after if after is not None else (self.prefix + self.low if self.low is not None else None)
        found = txn.scan(self.table, prefix=self.prefix, after=start, limit=limit)
        end = None if self.high is None else self.prefix + self.high
        return [key for key, _ in found if end is None or key < end]


@dataclass(frozen=True)
class Found:
    """A page of certificates, and the token of the next one ("" on the last)."""

    certificates: Sequence[Certificate]
    next_token: str


def search(txn: ReadTransaction, wanted: CertificateFilter, page: Page, now: int) -> Found:
    """Return a page of the certificates that match; ``now`` is in seconds UTC.

    Raises InvalidInputError for a malformed filter, and for a page token that was given for another one.
    """
    matches = _matcher(wanted)
    if wanted.serial or wanted.spki_sha256:
        enrollment_id = _pointed_at(txn, wanted)
        found = _certificates(txn, enrollment_id, None, now) if enrollment_id else []
        return Found([c for c in found if matches(c)], "")

    if wanted.serial_prefix:
        return _beginning(txn, IdPrefix(wanted.serial_prefix), page, now, matches)

    def expand(row: bytes, source: Range) -> list[Certificate]:
        return [c for c in _certificates(txn, row[-ENROLLMENT_ID_SIZE:], source.standing, now) if matches(c)]

    return _scan(txn, _ranges(wanted, now), page, expand)


def _beginning(
    txn: ReadTransaction, prefix: IdPrefix, page: Page, now: int, matches: Callable[[Certificate], bool]
) -> Found:
    """Return a page of the certificates whose serial numbers begin so, in the order of these."""
    rows = prefix.rows(txn, SERIALS, after=page.after, limit=page.limit)
    pairs = [(serial, SerialRecord.FromString(value).enrollment_id) for serial, value in rows]
    found = [
        certificate
        for serial, enrollment_id in pairs
        for certificate in _certificates(txn, enrollment_id, None, now)
        if certificate.serial == serial and matches(certificate)
    ]
    return Found(found, page.next_token(rows))


def _start(page: Page) -> tuple[int, bytes | None]:
    """Return the number of the range that a page starts in, and the key that it starts after."""
    if page.after is None:
        return 0, None
    if len(page.after) <= ENROLLMENT_ID_SIZE:
        raise InvalidInputError(
            "The page token belongs to another query; start with an empty one.", field="page.page_token"
        )
    return page.after[0], page.after[1:]


def _scan(
    txn: ReadTransaction,
    ranges: Sequence[Range],
    page: Page,
    expand: Callable[[bytes, Range], list[Certificate]],
) -> Found:
    """Walk the ranges until the page is full, has looked at enough, or nothing is left."""
    found: list[Certificate] = []
    pairs = examined = 0
    start, after = _start(page)
    for number in range(start, len(ranges)):
        source = ranges[number]
        while True:
            limit = min(page.limit - pairs, MAX_EXAMINED - examined)
            rows = source.rows(txn, after, limit)
            for row in rows:
                certificates = expand(row, source)
                found += certificates
                pairs += bool(certificates)
            examined += len(rows)
            if len(rows) < limit:
                break
            after = rows[-1]
            if pairs >= page.limit or examined >= MAX_EXAMINED:
                return Found(found, page.token(bytes([number]) + after))
        after = None
    return Found(found, "")


def _ranges(wanted: CertificateFilter, now: int) -> list[Range]:
    """Return where the candidates are, narrowest first: e-mail address, name, then expiry, then all."""
    if wanted.email:
        return [Range(table=INDEX, prefix=email_prefix(wanted.email))]
    if wanted.common_name:
        return [Range(table=INDEX, prefix=name_prefix(wanted.common_name))]
    if not (wanted.state or wanted.profile or wanted.expires_from or wanted.expires_until):
        return [Range(table=PAIRS, prefix=b"")]
    earliest, latest = wanted.expires_from, wanted.expires_until
    if wanted.state == CertificateState.CERTIFICATE_STATE_VALID:
        earliest = max(earliest, now)
    elif wanted.state == CertificateState.CERTIFICATE_STATE_EXPIRED:
        latest = min(latest or now - 1, now - 1)
    return [
        Range(
            table=INDEX,
            prefix=expiry_prefix(state, profile=wanted.profile),
            low=expiry_key(earliest) if earliest else None,
            high=expiry_key(latest + 1) if latest else None,
            standing=state,
        )
        for state in _STANDINGS[wanted.state]
    ]


def _pointed_at(txn: ReadTransaction, wanted: CertificateFilter) -> bytes | None:
    """Return the enrollment id of the one certificate that can match."""
    if wanted.serial:
        value = txn.get(SERIALS, wanted.serial)
        return SerialRecord.FromString(value).enrollment_id if value is not None else None
    value = txn.get(key_uses.TABLE, wanted.spki_sha256)
    return KeyUse.FromString(value).enrollment_id if value is not None else None


def _certificates(
    txn: ReadTransaction, enrollment_id: bytes, state: Standing | None, now: int
) -> list[Certificate]:
    pair = read_pair(txn, enrollment_id)
    if pair is None or not is_issued(pair):
        return []
    described = describe_pair(enrollment_id, pair, now)
    return [c for c in described if state is None or standing(pair, c.role) == state]


def _matcher(wanted: CertificateFilter) -> Callable[[Certificate], bool]:
    """Return what holds a certificate against everything that the filter says."""
    _check(wanted)
    common_name, email = folded_name(wanted.common_name), wanted.email.lower()

    def matches(certificate: Certificate) -> bool:
        return (
            (not common_name or folded_name(certificate.common_name) == common_name)
            and (not email or certificate.email.lower() == email)
            and (not wanted.serial or certificate.serial == wanted.serial)
            and certificate.serial.hex().startswith(wanted.serial_prefix)
            and (not wanted.spki_sha256 or certificate.spki_sha256 == wanted.spki_sha256)
            and (not wanted.state or certificate.state == wanted.state)
            and (not wanted.expires_from or certificate.not_after >= wanted.expires_from)
            and (not wanted.expires_until or certificate.not_after <= wanted.expires_until)
            and (not wanted.profile or certificate.profile == wanted.profile)
        )

    return matches


def _check(wanted: CertificateFilter) -> None:
    if wanted.serial:
        check_serial(wanted.serial)
    if wanted.spki_sha256 and len(wanted.spki_sha256) != sha256().digest_size:
        raise InvalidInputError("A key id is a SHA-256 of 32 bytes.", field="filter.spki_sha256")
    if wanted.state not in _STANDINGS:
        raise InvalidInputError("This release does not know that state.", field="filter.state")
    for name in ("expires_from", "expires_until"):
        if not 0 <= getattr(wanted, name) < 1 << 62:
            raise InvalidInputError(
                "Times are in seconds since 1970-01-01T00:00:00Z.", field=f"filter.{name}"
            )
