"""Entries of certificate revocation lists (RFC 5280 §5.1.2.6 and §5.3), encoded one by one so that lists are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keyark.keys import der as _der
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.serials import check_serial


def _rfc_name(name: str) -> str:
    first, *others = name.removeprefix("REVOCATION_REASON_").lower().split("_")
    return first + "".join(map(str.capitalize, others))


REASONS: Final[Mapping[str, RevocationReason.ValueType]] = {
    _rfc_name(name): number for name, number in RevocationReason.items()
}
"""The reasons that certificates are revoked or held for, by their names in RFC 5280 §5.3.1."""
REMOVE_FROM_CRL: Final = 8
"""The reason of an entry in a delta CRL that takes one back, RFC 5280 §5.3.1."""

_REASON_CODE: Final = _der.object_identifier("2.5.29.21")
_INVALIDITY_DATE: Final = _der.object_identifier("2.5.29.24")


def encode_entry(serial: bytes, *, revocation_time: int, reason: int, invalidity_time: int) -> bytes:
    """Return one entry, DER; times in seconds UTC.

    ``reason`` is a CRLReason below 128, and 0 (unspecified) is left out as RFC 5280 asks; ``invalidity_time`` 0
    is left out. Raises InvalidInputError for a serial number that is not one.
    """
    check_serial(serial)
    extensions = _extension(_REASON_CODE, _der.enumerated(reason)) if reason else b""
    if invalidity_time:
        extensions += _extension(_INVALIDITY_DATE, _der.generalized_time(invalidity_time))
    return _der.sequence(
        _der.unsigned_integer(serial),
        _der.encode_time(revocation_time),
        _der.sequence(extensions) if extensions else b"",
    )


def _extension(oid: bytes, value: bytes) -> bytes:
    return _der.sequence(oid, _der.octet_string(value))
