"""Why a ceremony is refused: what the DRM raises and recovery agents catch."""

from __future__ import annotations

from keyark.errors import KeyarkError, Kind, PermissionDeniedError


class CeremonyClosedError(KeyarkError):
    """The ceremony is over, or not yet where this could be done."""

    reason = "CEREMONY_CLOSED"
    kind = Kind.PRECONDITION


class CeremonyExpiredError(CeremonyClosedError):
    """The ceremony's time ran out before a quorum approved."""

    reason = "CEREMONY_EXPIRED"


class CeremonyCanceledError(CeremonyClosedError):
    """The requester ended the ceremony."""

    reason = "CEREMONY_CANCELED"


class CeremonyRejectedError(CeremonyClosedError):
    """So many agents rejected the ceremony that no quorum is left."""

    reason = "CEREMONY_REJECTED"


class RequesterLeftError(CeremonyClosedError):
    """The requester holds no share any more, so that what it asked for goes to nobody."""

    reason = "REQUESTER_LEFT"


class CeremonyMovedError(KeyarkError):
    """What the ceremony is about lies under other storage keys by now; it has to be opened anew."""

    reason = "CEREMONY_MOVED"
    kind = Kind.PRECONDITION


class AnotherCeremonyError(KeyarkError):
    """Another ceremony has to end before this one can be opened."""

    reason = "ANOTHER_CEREMONY"
    kind = Kind.PRECONDITION


class AgentQuotaError(KeyarkError):
    """The agent has as many ceremonies open, or caused as much work in this hour, as one agent may."""

    reason = "AGENT_QUOTA"
    kind = Kind.PRECONDITION


class RecoveredKeysLostError(KeyarkError):
    """Keys were recovered and not handed over before the archive was restored from a backup."""

    reason = "RECOVERED_KEYS_LOST"
    kind = Kind.PRECONDITION


class OwnRequestError(PermissionDeniedError):
    """A requester does not approve its own request."""

    reason = "OWN_REQUEST"


class NoShareError(PermissionDeniedError):
    """The caller holds no share, of the newest storage key or of what the ceremony opens."""

    reason = "NO_SHARE"


class AlreadyDecidedError(KeyarkError):
    """The agent decided otherwise before."""

    reason = "ALREADY_DECIDED"
    kind = Kind.CONFLICT


class KeyUncertifiedError(KeyarkError):
    """No certificate is known for the archived key, so nobody knows whose it became."""

    reason = "KEY_UNCERTIFIED"
    kind = Kind.PRECONDITION


class KeyDeactivatedError(KeyarkError):
    """An agent keeps the archived key from being recovered."""

    reason = "KEY_DEACTIVATED"
    kind = Kind.PRECONDITION


class KeyIntegrityError(KeyarkError):
    """An archived key does not open, or is not the key that the log says it is."""

    reason = "KEY_INTEGRITY"
    kind = Kind.PRECONDITION


class NothingToResealError(KeyarkError):
    """There is no older storage key, or the newest one is another than was named."""

    reason = "NOTHING_TO_RESEAL"
    kind = Kind.PRECONDITION


class TrustChangeError(KeyarkError):
    """A change of storage keys or agents does not have the word of a quorum that is believed here."""

    reason = "TRUST_CHANGE"
    kind = Kind.PRECONDITION


class UnknownChangeError(KeyarkError):
    """A caller follows the changes of agents and storage keys from one that is not known here."""

    reason = "UNKNOWN_CHANGE"
    kind = Kind.PRECONDITION
