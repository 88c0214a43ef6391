"""Why an enrollment, a renewal or an officer's decision is refused: what RM, CM and DRM raise and clients catch."""

from __future__ import annotations

from keyark.errors import KeyarkError, Kind, NotFoundError


class CallerSignatureRequiredError(KeyarkError):
    """The profile demands that the caller's identity key signs the call, and no signed call came along."""

    reason = "CALLER_SIGNATURE_REQUIRED"
    kind = Kind.PRECONDITION


class RenewalRefusedError(KeyarkError):
    """The certificate cannot be renewed: it is not one of this CA, not in force, or somebody else's."""

    reason = "RENEWAL_REFUSED"
    kind = Kind.PRECONDITION
    is_final = True


class RenewalOnHoldError(RenewalRefusedError):
    """The certificate is on hold, which an officer may release."""

    reason = "RENEWAL_ON_HOLD"
    is_final = False


class AlreadyRenewedError(KeyarkError):
    """Another enrollment renewed the certificate."""

    reason = "ALREADY_RENEWED"
    kind = Kind.CONFLICT
    is_final = True


class WrongTrustDomainError(KeyarkError):
    """The statement was made for another deployment."""

    reason = "WRONG_TRUST_DOMAIN"
    kind = Kind.PRECONDITION
    is_final = True


class RequestIdReusedError(KeyarkError):
    """The request id already stands for a request with other content (P9)."""

    reason = "REQUEST_ID_REUSED"
    kind = Kind.CONFLICT
    is_final = True


class PublicKeyInUseError(KeyarkError):
    """Another enrollment already holds this public key."""

    reason = "PUBLIC_KEY_IN_USE"
    kind = Kind.CONFLICT
    is_final = True


class KeyRoleConflictError(KeyarkError):
    """A signing key stands where an encryption key should, or the other way round (P8)."""

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
    """The profile forbids archival, and a wrapped private key or a receipt came along."""

    reason = "ARCHIVAL_FORBIDDEN"
    kind = Kind.PRECONDITION
    is_final = True


class ReceiptMissingError(KeyarkError):
    """The profile requires archival and no archival receipt was shown (P1)."""

    reason = "RECEIPT_REQUIRED"
    kind = Kind.PRECONDITION
    is_final = True


class KeyPairRefusedError(KeyarkError):
    """The private key that came with these two public keys did not match once; they are refused for good."""

    reason = "KEY_PAIR_REFUSED"
    kind = Kind.PRECONDITION
    is_final = True


class LinkedElsewhereError(KeyarkError):
    """The archived key is linked to another certificate already."""

    reason = "LINKED_ELSEWHERE"
    kind = Kind.CONFLICT
    is_final = True


class TooManyHoldersError(KeyarkError):
    """More pairs were issued under a common name than a rule looks at, so it cannot tell and rejects."""

    reason = "TOO_MANY_HOLDERS"
    kind = Kind.EXHAUSTED


class NotPendingError(KeyarkError):
    """The request does not wait any more: another officer was quicker, or its time is over."""

    reason = "NOT_PENDING"
    kind = Kind.CONFLICT


class RequestChangedError(KeyarkError):
    """The request is not what the officer looked at."""

    reason = "REQUEST_CHANGED"
    kind = Kind.CONFLICT


class AssignedElsewhereError(KeyarkError):
    """Another officer alone decides on this request."""

    reason = "ASSIGNED_ELSEWHERE"
    kind = Kind.DENIED


class SeparationOfDutiesError(KeyarkError):
    """The officer submitted the request, or is a recovery agent; somebody else decides."""

    reason = "SEPARATION_OF_DUTIES"
    kind = Kind.DENIED


class TooManyWaitingError(KeyarkError):
    """The caller has as many requests before the officers as one caller may."""

    reason = "TOO_MANY_WAITING"
    kind = Kind.PRECONDITION
