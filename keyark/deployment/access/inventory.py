"""Who has access: every certificate that the internal CA signed for services and people, and what became of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from cryptography import x509

from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.issued import IssuedIdentity
from keyark.errors import NotFoundError
from keyark.files import read_file
from keyark.identity.revoked import IDENTITY_LIST, MAX_SIZE

IN_FORCE: Final = "in force"
EXPIRED: Final = "expired"
REVOKED: Final = "revoked"
STATES: Final = (IN_FORCE, EXPIRED, REVOKED)


@dataclass(frozen=True, kw_only=True)
class InventoryEntry:
    """A certificate of an identity; ``revoked_at`` (seconds UTC) and ``reason`` only where it is revoked."""

    issued: IssuedIdentity
    state: str
    revoked_at: int | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return asdict(self.issued) | {
            "state": self.state,
            "revoked": self.state == REVOKED,
            "revoked_at": self.revoked_at,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Inventory:
    """What an authority signed, in the order of issuance."""

    authority: DeploymentAuthority

    def entries(self) -> list[InventoryEntry]:
        """Return all of it; raises ConfigurationError for a damaged record, and IdentityListError."""
        revoked, now = self._revoked(), int(time.time())
        return [_entry(one, revoked.get(int(one.serial, 16)), now) for one in self.authority.issued.entries()]

    def find(self, what: str) -> list[InventoryEntry]:
        """Return the certificates of an identity ("client/alice"), or the one with a serial number (hexadecimal).

        Raises NotFoundError where there is none.
        """
        found = [one for one in self.entries() if what in (one.issued.identity, one.issued.serial)]
        if not found:
            raise NotFoundError(
                f"The authority has no record of {what!r}; `keyark identities list` shows what it issued."
            )
        return found

    def _revoked(self) -> dict[int, tuple[int, str]]:
        """When and why each serial number was revoked, by the authority's newest list."""
        self.authority.revoked()  # raises unless the list is the internal CA's
        path = self.authority.folder / IDENTITY_LIST
        if not path.exists():
            return {}
        crl = x509.load_pem_x509_crl(read_file(path, max_size=MAX_SIZE))
        return {one.serial_number: (int(one.revocation_date_utc.timestamp()), _reason(one)) for one in crl}


def _entry(issued: IssuedIdentity, revoked: tuple[int, str] | None, now: int) -> InventoryEntry:
    if revoked is not None:
        return InventoryEntry(issued=issued, state=REVOKED, revoked_at=revoked[0], reason=revoked[1])
    state = EXPIRED if issued.not_after < now else IN_FORCE
    return InventoryEntry(issued=issued, state=state, revoked_at=None, reason="")


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:  # RFC 5280 §5.3.1: unspecified is left out
        return x509.ReasonFlags.unspecified.value
