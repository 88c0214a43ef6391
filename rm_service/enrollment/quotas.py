"""How many enrollments each caller completed, by the hour: what the rule type Quota looks at.

The count is written in the transaction that records the outcome, so it survives crashes and restarts; hours older than
a day are forgotten when the caller's next hour begins.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from keyark.store import ReadTransaction, WriteTransaction
from rm_service.records import CALLER_COUNTS

HOURS: Final = 24
HOUR_US: Final = 3_600_000_000

_CALLER_SIZE: Final = 16


def count_enrollment(txn: WriteTransaction, caller: str, now_us: int) -> None:
    """Count one more enrollment of a caller in the hour of ``now_us`` (microseconds UTC)."""
    prefix, hour = _prefix(caller), now_us // HOUR_US
    key = prefix + _hour(hour)
    before = txn.get(CALLER_COUNTS, key)
    txn.put(CALLER_COUNTS, key, (int.from_bytes(before or b"", "big") + 1).to_bytes(8, "big"))
    if before is None:
        for old, _ in txn.scan(CALLER_COUNTS, prefix=prefix, limit=HOURS):
            if old < prefix + _hour(hour - HOURS):
                txn.delete(CALLER_COUNTS, old)


def enrollments_within(txn: ReadTransaction, caller: str, *, hours: int, now_us: int) -> int:
    """Return a caller's enrollments within so many clock hours (1 to 24), the one of ``now_us`` included."""
    prefix, first = _prefix(caller), now_us // HOUR_US - hours + 1
    rows = txn.scan(CALLER_COUNTS, prefix=prefix, limit=2 * HOURS)
    return sum(int.from_bytes(count, "big") for key, count in rows if key >= prefix + _hour(first))


def _prefix(caller: str) -> bytes:
    return sha256(caller.encode()).digest()[:_CALLER_SIZE]


def _hour(number: int) -> bytes:
    return max(number, 0).to_bytes(4, "big")
