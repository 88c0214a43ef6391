"""Every error that a client can meet, by its class: what services raise and what the SDK finds itself.

    try:
        enrolled = await client.enroll(common_name="Alice Example", email="alice@example.org")
    except PendingApprovalError:
        ...  # an officer decides
    except KeyarkError as error:
        print(error.reason, error.message, error.remedy)

All are a `KeyarkError`. ``reason`` and ``remedy`` are those of the tables in docs/protocol.md.
A service of a later release may give a reason that is not known here: that is a `RemoteError`.
"""

from keyark.client.administration import AmbiguousOwnerError, OwnerMismatchError
from keyark.client.archive_pins import ArchiveChangeError, PinsBehindError, PinsMissingError
from keyark.client.audit import LogMismatchError, ReceiptTimeError
from keyark.client.ceremony_review import CeremonyMismatchError, ChangePendingError
from keyark.client.folder import FolderTakenError, OtherFormError, OtherRequestError
from keyark.client.passwords import PasswordFileError, WeakPasswordError
from keyark.client.pending import (
    EnrollmentCanceledError,
    EnrollmentExpiredError,
    EnrollmentRejectedError,
    PendingApprovalError,
)
from keyark.client.recipients import RecipientKeyMissingError
from keyark.client.user_list import UserListError
from keyark.client.verification import UnexpectedAnswerError
from keyark.client.witnesses import PrivateLogError
from keyark.crypto.agents import FormerShareKeyError, ShareKeyError
from keyark.crypto.ceremonies import CeremonySignatureError, DecisionMismatchError
from keyark.crypto.envelopes import EnvelopeError, UnknownTransportKeyError
from keyark.crypto.matching import KeyMismatchError, MlKemSeedRequiredError
from keyark.crypto.pkcs8 import InvalidPrivateKeyError
from keyark.crypto.shares import QuorumError, QuorumNotReachedError, WrongShareError
from keyark.crypto.storage import SealError
from keyark.crypto.token import TokenError
from keyark.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    Kind,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PolicyRejectedError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from keyark.errors.enrollment import (
    AlreadyRenewedError,
    ArchivalForbiddenError,
    AssignedElsewhereError,
    CallerSignatureRequiredError,
    KeyPairRefusedError,
    KeyRoleConflictError,
    KeyTypeNotPermittedError,
    LinkedElsewhereError,
    NotPendingError,
    PublicKeyInUseError,
    ReceiptMissingError,
    RenewalOnHoldError,
    RenewalRefusedError,
    RequestChangedError,
    RequestIdReusedError,
    SeparationOfDutiesError,
    TooManyHoldersError,
    TooManyWaitingError,
    UnknownProfileError,
    WrongTrustDomainError,
)
from keyark.errors.recovery import (
    AgentQuotaError,
    AlreadyDecidedError,
    AnotherCeremonyError,
    CeremonyCanceledError,
    CeremonyClosedError,
    CeremonyExpiredError,
    CeremonyMovedError,
    CeremonyRejectedError,
    KeyDeactivatedError,
    KeyIntegrityError,
    KeyUncertifiedError,
    NoShareError,
    NothingToResealError,
    OwnRequestError,
    RecoveredKeysLostError,
    RequesterLeftError,
    TrustChangeError,
    UnknownChangeError,
)
from keyark.errors.services import (
    ArchiveAnswerError,
    ArchiveRestoredError,
    CheckpointGapError,
    CheckpointMismatchError,
    LogClosedError,
    LogCorruptError,
    LogInconsistentError,
    PoisonedItemError,
    SigningMismatchError,
    StaleCheckpointError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    TreeSizeError,
    UnknownMethodError,
    UnknownStorageKeyError,
    UnreadMessageError,
    WitnessQuotaError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerStartError,
)
from keyark.pki.approvals import ApprovalMismatchError, ApprovalSignatureError, ApprovalTimeError
from keyark.pki.calls import CallMismatchError, CallSignatureError, CallTimeError
from keyark.pki.certificates import CertificateFormatError, IssuerNotYetValidError, IssuerValidityError
from keyark.pki.chains import CertificateChainError, CertificateExpiredError, CertificateNotYetValidError
from keyark.pki.files import (
    FileExistsAlreadyError,
    FolderInUseError,
    ForeignOwnerError,
    LaxPermissionsError,
    UnreadableFileError,
    UnwritableFileError,
)
from keyark.pki.key_types import UnsupportedKeyError
from keyark.pki.keys import KeyFileError, PasswordRequiredError, WrongPasswordError
from keyark.pki.pairs import CertificateMismatchError
from keyark.pki.revocations import (
    AlreadyExpiredError,
    AlreadyRevokedError,
    CrlsNotConfiguredError,
    NotOnHoldError,
    RevocationSignatureError,
)
from keyark.pki.revoked_identities import IdentityListError, IdentityRevokedError, OlderIdentityListError
from keyark.pki.spki import SpkiNotCanonicalError
from keyark.pki.statements import RenewalSignatureError, StatementSignatureError
from keyark.pki.transport import TransportCertificateError
from keyark.pki.weak_keys import WeakKeyError
from keyark.rpc.errors import InternalError, MessageTooLargeError, RemoteError
from keyark.rpc.pinning import ServiceRevokedError
from keyark.rpc.reach import (
    IdentityEndedError,
    IdentityNotYetValidError,
    NoConnectionError,
    ServiceCertificateError,
)
from keyark.transparency.checkpoint import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointKeyError,
    CheckpointOriginError,
    CheckpointSignatureError,
)
from keyark.transparency.events import EventError
from keyark.transparency.merkle import ConsistencyProofError, InclusionProofError
from keyark.transparency.receipts import ReceiptError, ReceiptFormatError, ReceiptMismatchError
from keyark.transparency.transport_keys import (
    TransportKeyEndedError,
    TransportKeyRetiredError,
    TransportKeyUnprovenError,
)

__all__ = [
    "AgentQuotaError",
    "AlreadyDecidedError",
    "AlreadyExpiredError",
    "AlreadyRenewedError",
    "AlreadyRevokedError",
    "AmbiguousOwnerError",
    "AnotherCeremonyError",
    "ApprovalMismatchError",
    "ApprovalSignatureError",
    "ApprovalTimeError",
    "ArchivalForbiddenError",
    "ArchiveAnswerError",
    "ArchiveChangeError",
    "ArchiveRestoredError",
    "AssignedElsewhereError",
    "CallMismatchError",
    "CallSignatureError",
    "CallTimeError",
    "CallerSignatureRequiredError",
    "CeremonyCanceledError",
    "CeremonyClosedError",
    "CeremonyExpiredError",
    "CeremonyMismatchError",
    "CeremonyMovedError",
    "CeremonyRejectedError",
    "CeremonySignatureError",
    "CertificateChainError",
    "CertificateExpiredError",
    "CertificateFormatError",
    "CertificateMismatchError",
    "CertificateNotYetValidError",
    "ChangePendingError",
    "CheckpointError",
    "CheckpointFormatError",
    "CheckpointGapError",
    "CheckpointKeyError",
    "CheckpointMismatchError",
    "CheckpointOriginError",
    "CheckpointSignatureError",
    "ConfigurationError",
    "ConsistencyProofError",
    "CrlsNotConfiguredError",
    "DeadlineExceededError",
    "DecisionMismatchError",
    "EnrollmentCanceledError",
    "EnrollmentExpiredError",
    "EnrollmentRejectedError",
    "EnvelopeError",
    "EventError",
    "FileExistsAlreadyError",
    "FolderInUseError",
    "FolderTakenError",
    "ForeignOwnerError",
    "FormerShareKeyError",
    "IdentityEndedError",
    "IdentityListError",
    "IdentityNotYetValidError",
    "IdentityRevokedError",
    "InclusionProofError",
    "InternalError",
    "InvalidInputError",
    "InvalidPrivateKeyError",
    "IssuerNotYetValidError",
    "IssuerValidityError",
    "KeyDeactivatedError",
    "KeyFileError",
    "KeyIntegrityError",
    "KeyMismatchError",
    "KeyPairRefusedError",
    "KeyRoleConflictError",
    "KeyTypeNotPermittedError",
    "KeyUncertifiedError",
    "KeyarkError",
    "Kind",
    "LaxPermissionsError",
    "LinkedElsewhereError",
    "LogClosedError",
    "LogCorruptError",
    "LogInconsistentError",
    "LogMismatchError",
    "MessageTooLargeError",
    "MlKemSeedRequiredError",
    "NoConnectionError",
    "NoShareError",
    "NotFoundError",
    "NotOnHoldError",
    "NotPendingError",
    "NothingToResealError",
    "OlderIdentityListError",
    "OtherFormError",
    "OtherRequestError",
    "OverloadedError",
    "OwnRequestError",
    "OwnerMismatchError",
    "PasswordFileError",
    "PasswordRequiredError",
    "PendingApprovalError",
    "PermissionDeniedError",
    "PinsBehindError",
    "PinsMissingError",
    "PoisonedItemError",
    "PolicyRejectedError",
    "PrivateLogError",
    "PublicKeyInUseError",
    "QuorumError",
    "QuorumNotReachedError",
    "ReceiptError",
    "ReceiptFormatError",
    "ReceiptMismatchError",
    "ReceiptMissingError",
    "ReceiptTimeError",
    "RecipientKeyMissingError",
    "RecoveredKeysLostError",
    "RemoteError",
    "RenewalOnHoldError",
    "RenewalRefusedError",
    "RenewalSignatureError",
    "RequestChangedError",
    "RequestIdReusedError",
    "RequesterLeftError",
    "RevocationSignatureError",
    "SealError",
    "SeparationOfDutiesError",
    "ServiceCertificateError",
    "ServiceRevokedError",
    "ShareKeyError",
    "SigningMismatchError",
    "SpkiNotCanonicalError",
    "StaleCheckpointError",
    "StatementSignatureError",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "TokenError",
    "TooManyHoldersError",
    "TooManyWaitingError",
    "TransportCertificateError",
    "TransportKeyEndedError",
    "TransportKeyRetiredError",
    "TransportKeyUnprovenError",
    "TreeSizeError",
    "TrustChangeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnknownChangeError",
    "UnknownMethodError",
    "UnknownProfileError",
    "UnknownStorageKeyError",
    "UnknownTransportKeyError",
    "UnreadMessageError",
    "UnreadableFileError",
    "UnsupportedKeyError",
    "UnwritableFileError",
    "UserListError",
    "Violation",
    "WeakKeyError",
    "WeakPasswordError",
    "WitnessQuotaError",
    "WorkerDiedError",
    "WorkerFailedError",
    "WorkerStartError",
    "WrongPasswordError",
    "WrongShareError",
    "WrongTrustDomainError",
]
