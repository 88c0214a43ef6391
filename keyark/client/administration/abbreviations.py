"""Abbreviated ids, as in git: the first digits of an id, four or more, where only one id begins so.

The service is asked for the ids that begin so. It could answer with another one each time, so whatever is signed is
named by its whole id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

from keyark.client.access.sessions import Session
from keyark.client.administration import lists
from keyark.client.administration.paging import Paging
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.errors import InvalidInputError, KeyarkError, Kind, NotFoundError
from keyark.v1.certificates_pb2 import CertificateFilter
from keyark.v1.recovery_pb2 import KeyFilter
from keyark.x509.serials import MAX_SERIAL_SIZE

CEREMONY_ID_DIGITS: Final = 32
DIGEST_DIGITS: Final = 64
SERIAL_DIGITS: Final = 2 * MAX_SERIAL_SIZE

_LEAST: Final = 4
_CANDIDATES: Final = 10
_HEXADECIMAL: Final = frozenset("0123456789abcdef")
_SEPARATORS: Final = str.maketrans("", "", ":-")

Entry = TypeVar("Entry")


class AmbiguousIdError(KeyarkError):
    """Several ids begin with the digits that were given."""

    reason = "AMBIGUOUS_ID"
    kind = Kind.INVALID


def _digits_of(text: str) -> str:
    """Return hexadecimal digits in lower case, without the colons or hyphens that may part them.

    Raises InvalidInputError for what is none.
    """
    digits = text.translate(_SEPARATORS).lower()
    if not (digits and set(digits) <= _HEXADECIMAL):
        raise InvalidInputError(f"{text!r} is not hexadecimal; copy an id as the list shows it.", field="id")
    return digits


async def whole_key_id(session: Session, text: str) -> bytes:
    """Return the key id (32 bytes) that begins so, of an archived key; ``session`` is an agent's with the DRM.

    Raises InvalidInputError, NotFoundError, and AmbiguousIdError with the candidates, as all of these functions do.
    """
    digits = _digits_of(text)
    if len(digits) == DIGEST_DIGITS:
        return bytes.fromhex(digits)
    found = lists.list_keys(session, KeyFilter(key_id_prefix=_long_enough(digits)), _some())
    return await _only_one(found, lambda key: key.key_id, digits, "keyark keys list")


async def whole_serial(session: Session, text: str) -> bytes:
    """Return the serial number (big-endian, without leading zeros) that begins so; ``session`` is an officer's, CM."""
    digits = _digits_of(text)
    if len(digits) >= SERIAL_DIGITS:
        return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0")).lstrip(b"\0")
    matching = CertificateFilter(serial_prefix=_long_enough(digits))
    found = lists.list_certificates(session, matching, _some())
    return await _only_one(found, lambda certificate: certificate.serial, digits, "keyark certificates list")


async def whole_enrollment_id(session: Session, text: str) -> bytes:
    """Return the enrollment id (32 bytes) that begins so; ``session`` is an officer's with the RM."""
    digits = _digits_of(text)
    if len(digits) == DIGEST_DIGITS:
        return bytes.fromhex(digits)
    found = lists.list_enrollments(session, paging=_some(), id_prefix=_long_enough(digits))
    return await _only_one(
        found, lambda enrollment: enrollment.enrollment_id, digits, "keyark enrollments list"
    )


async def whole_ceremony_id(session: Session, text: str) -> bytes:
    """Return the ceremony id (16 bytes) that begins so; ``session`` is an agent's or auditor's with the DRM."""
    digits = _digits_of(text)
    if len(digits) == CEREMONY_ID_DIGITS:
        return bytes.fromhex(digits)
    found = lists.list_ceremonies(session, paging=_some(), id_prefix=_long_enough(digits))
    return await _only_one(found, lambda ceremony: ceremony.ceremony_id, digits, "keyark recover list")


def _some() -> Paging:
    return Paging(limit=_CANDIDATES)


def _long_enough(digits: str) -> str:
    if not _LEAST <= len(digits) < DIGEST_DIGITS:
        raise InvalidInputError(
            f"{digits!r} is neither an id nor an abbreviation of one; give {_LEAST} digits or more.",
            field="id",
        )
    return digits


async def _only_one(
    found: AsyncIterator[Entry], id_of: Callable[[Entry], bytes], digits: str, listing: str
) -> bytes:
    """Return the one id that begins so of what a service listed."""
    candidates = [id_of(entry) async for entry in found]
    if any(not candidate.hex().startswith(digits) for candidate in candidates):
        raise UnexpectedAnswerError(
            f"The service listed an id that does not begin with {digits}; ask its operator."
        )
    if not candidates:
        raise NotFoundError(f"No id that you may see begins with {digits}; `{listing}` lists them.")
    if len(candidates) > 1:
        ids = ", ".join(candidate.hex() for candidate in candidates)
        more = " and others" if len(candidates) >= _CANDIDATES else ""
        raise AmbiguousIdError(f"Several ids begin with {digits}; give more digits. They are: {ids}{more}.")
    return candidates[0]
