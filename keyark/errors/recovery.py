"""Why a ceremony is refused: what the DRM raises and recovery agents catch."""

from __future__ import annotations

from keyark.errors import KeyarkError, Kind, PermissionDeniedError


class CeremonyClosedError(KeyarkError):
    """The ceremony is over, or not yet in a state in which this is possible."""

    reason = "CEREMONY_CLOSED"
    kind = Kind.PRECONDITION


class CeremonyExpiredError(CeremonyClosedError):
    """The ceremony expired before a quorum approved."""

    reason = "CEREMONY_EXPIRED"


class CeremonyCanceledError(CeremonyClosedError):
    """The requester canceled the ceremony."""

    reason = "CEREMONY_CANCELED"


class CeremonyRejectedError(CeremonyClosedError):
    """So many agents rejected the ceremony that too few are left for a quorum."""

    reason = "CEREMONY_REJECTED"


class RequesterLeftError(CeremonyClosedError):
    """The requester no longer has a share, so nobody gets what it asked for."""

    reason = "REQUESTER_LEFT"


class CeremonyMovedError(KeyarkError):
    """The ceremony's keys are now under other storage keys, so it must be opened again."""

    reason = "CEREMONY_MOVED"
    kind = Kind.PRECONDITION


class AnotherCeremonyError(KeyarkError):
    """Another ceremony has to end before this one can be opened."""

    reason = "ANOTHER_CEREMONY"
    kind = Kind.PRECONDITION


class AgentQuotaError(KeyarkError):
    """The agent has reached its limit of open ceremonies, or of work within this hour."""

    reason = "AGENT_QUOTA"
    kind = Kind.PRECONDITION


class RecoveredKeysLostError(KeyarkError):
    """The archive was restored from a backup before recovered keys were delivered."""

    reason = "RECOVERED_KEYS_LOST"
    kind = Kind.PRECONDITION


class OwnRequestError(PermissionDeniedError):
    """A requester does not approve its own request."""

    reason = "OWN_REQUEST"


class NoShareError(PermissionDeniedError):
    """The caller has no share of the newest storage key, or of what the ceremony opens."""

    reason = "NO_SHARE"


class AlreadyDecidedError(KeyarkError):
    """The agent has already decided otherwise."""

    reason = "ALREADY_DECIDED"
    kind = Kind.CONFLICT


class KeyUncertifiedError(KeyarkError):
    """The archive knows no certificate for the key, so nobody knows whose it is."""

    reason = "KEY_UNCERTIFIED"
    kind = Kind.PRECONDITION


class KeyDeactivatedError(KeyarkError):
    """An agent has deactivated the archived key."""

    reason = "KEY_DEACTIVATED"
    kind = Kind.PRECONDITION


class KeyIntegrityError(KeyarkError):
    """An archived key does not open, or is not the key that the log says it is."""

    reason = "KEY_INTEGRITY"
    kind = Kind.PRECONDITION


class NothingToResealError(KeyarkError):
    """There is no older storage key, or the request does not name the newest one."""

    reason = "NOTHING_TO_RESEAL"
    kind = Kind.PRECONDITION


class TrustChangeError(KeyarkError):
    """A change of storage keys or agents was not approved by a quorum that this service trusts."""

    reason = "TRUST_CHANGE"
    kind = Kind.PRECONDITION


class UnknownChangeError(KeyarkError):
    """The newest change of agents and storage keys that the caller knows is not known here."""

    reason = "UNKNOWN_CHANGE"
    kind = Kind.PRECONDITION
