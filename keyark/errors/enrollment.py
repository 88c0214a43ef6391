"""Why an enrollment, a renewal or an officer's decision is refused: what RM, CM and DRM raise and clients catch."""

from __future__ import annotations

from keyark.errors import KeyarkError, Kind, NotFoundError


class CallerSignatureRequiredError(KeyarkError):
    """The profile requires a call signed with the caller's identity key, and none was sent."""

    reason = "CALLER_SIGNATURE_REQUIRED"
    kind = Kind.PRECONDITION


class RenewalRefusedError(KeyarkError):
    """The certificate cannot be renewed: it is not from this CA, not in force, or somebody else's."""

    reason = "RENEWAL_REFUSED"
    kind = Kind.PRECONDITION
    is_final = True


class RenewalOnHoldError(RenewalRefusedError):
    """The certificate is suspended; an officer may release it."""

    reason = "RENEWAL_ON_HOLD"
    is_final = False


class AlreadyRenewedError(KeyarkError):
    """Another enrollment has already renewed the certificate."""

    reason = "ALREADY_RENEWED"
    kind = Kind.CONFLICT
    is_final = True


class WrongTrustDomainError(KeyarkError):
    """The statement was made for another deployment."""

    reason = "WRONG_TRUST_DOMAIN"
    kind = Kind.PRECONDITION
    is_final = True


class RequestIdReusedError(KeyarkError):
    """The request id was already used for a different request (P9)."""

    reason = "REQUEST_ID_REUSED"
    kind = Kind.CONFLICT
    is_final = True


class PublicKeyInUseError(KeyarkError):
    """Another enrollment already holds this public key."""

    reason = "PUBLIC_KEY_IN_USE"
    kind = Kind.CONFLICT
    is_final = True


class KeyRoleConflictError(KeyarkError):
    """A key is already known in the other role, signing or encryption (P8)."""

    reason = "KEY_ROLE_CONFLICT"
    kind = Kind.PRECONDITION
    is_final = True


class UnknownProfileError(NotFoundError):
    """No profile has this name."""

    reason = "UNKNOWN_PROFILE"


class KeyTypeNotPermittedError(KeyarkError):
    """The profile does not permit a key of this type or size."""

    reason = "KEY_TYPE_NOT_PERMITTED"
    kind = Kind.PRECONDITION
    is_final = True


class ArchivalForbiddenError(KeyarkError):
    """The profile forbids archival, but a wrapped private key or a receipt was sent."""

    reason = "ARCHIVAL_FORBIDDEN"
    kind = Kind.PRECONDITION
    is_final = True


class ReceiptMissingError(KeyarkError):
    """The profile requires archival, but there is no archival receipt (P1)."""

    reason = "RECEIPT_REQUIRED"
    kind = Kind.PRECONDITION
    is_final = True


class KeyPairRefusedError(KeyarkError):
    """A private key that was sent for these two public keys did not match, so they are refused permanently."""

    reason = "KEY_PAIR_REFUSED"
    kind = Kind.PRECONDITION
    is_final = True


class LinkedElsewhereError(KeyarkError):
    """The archived key is already linked to another certificate."""

    reason = "LINKED_ELSEWHERE"
    kind = Kind.CONFLICT
    is_final = True


class TooManyHoldersError(KeyarkError):
    """More pairs were issued under a common name than a rule examines, so it cannot decide and rejects."""

    reason = "TOO_MANY_HOLDERS"
    kind = Kind.EXHAUSTED


class NotPendingError(KeyarkError):
    """The request no longer waits: another officer decided, or it has expired."""

    reason = "NOT_PENDING"
    kind = Kind.CONFLICT


class RequestChangedError(KeyarkError):
    """The request has changed since the officer looked at it."""

    reason = "REQUEST_CHANGED"
    kind = Kind.CONFLICT


class AssignedElsewhereError(KeyarkError):
    """Only another officer may decide on this request."""

    reason = "ASSIGNED_ELSEWHERE"
    kind = Kind.DENIED


class SeparationOfDutiesError(KeyarkError):
    """The officer submitted the request or is a recovery agent, so another officer must decide."""

    reason = "SEPARATION_OF_DUTIES"
    kind = Kind.DENIED


class TooManyWaitingError(KeyarkError):
    """The caller has reached its limit of requests that wait for officers."""

    reason = "TOO_MANY_WAITING"
    kind = Kind.PRECONDITION
