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

from keyark.client.access.passwords import WeakPasswordError
from keyark.client.administration.abbreviations import AmbiguousIdError
from keyark.client.administration.lists import AmbiguousOwnerError, OwnerMismatchError
from keyark.client.enrollment.folder import FolderTakenError, OtherFormError, OtherRequestError
from keyark.client.enrollment.pending import (
    EnrollmentCanceledError,
    EnrollmentExpiredError,
    EnrollmentRejectedError,
    PendingApprovalError,
)
from keyark.client.enrollment.user_list import UserListError
from keyark.client.recovery.archive_pins import ArchiveChangeError, PinsBehindError, PinsMissingError
from keyark.client.recovery.recipients import RecipientKeyMissingError
from keyark.client.recovery.review import CeremonyMismatchError, ChangePendingError
from keyark.client.trust.receipts import LogMismatchError, ReceiptTimeError
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.client.trust.witnesses import PrivateLogError
from keyark.custody.agents import FormerShareKeyError, ShareKeyError
from keyark.custody.envelopes import EnvelopeError, UnknownTransportKeyError
from keyark.custody.matching import KeyMismatchError, MlKemSeedRequiredError
from keyark.custody.shares import QuorumError, QuorumNotReachedError, WrongShareError
from keyark.custody.storage import SealError
from keyark.custody.token import TokenError
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
from keyark.files import (
    FileExistsAlreadyError,
    ForeignOwnerError,
    LaxPermissionsError,
    UnreadableFileError,
    UnwritableFileError,
)
from keyark.folders import FolderInUseError
from keyark.identity.revoked import IdentityListError, IdentityRevokedError, OlderIdentityListError
from keyark.identity.transport import TransportCertificateError
from keyark.keys.key_types import UnsupportedKeyError
from keyark.keys.password_files import PasswordFileError
from keyark.keys.pkcs8 import InvalidPrivateKeyError
from keyark.keys.private_keys import KeyFileError, PasswordRequiredError, WrongPasswordError
from keyark.keys.spki import SpkiNotCanonicalError
from keyark.keys.weak_keys import WeakKeyError
from keyark.rpc.calling.pinning import ServiceRevokedError
from keyark.rpc.errors import InternalError, MessageTooLargeError, RemoteError
from keyark.rpc.reach import (
    IdentityEndedError,
    IdentityNotYetValidError,
    NoConnectionError,
    ServiceCertificateError,
)
from keyark.statements.approvals import ApprovalMismatchError, ApprovalSignatureError, ApprovalTimeError
from keyark.statements.calls import CallMismatchError, CallSignatureError, CallTimeError
from keyark.statements.ceremonies import CeremonySignatureError, DecisionMismatchError
from keyark.statements.enrollment import RenewalSignatureError, StatementSignatureError
from keyark.statements.pairs import CertificateMismatchError
from keyark.statements.revocations import (
    AlreadyExpiredError,
    AlreadyRevokedError,
    CrlsNotConfiguredError,
    NotOnHoldError,
    RevocationSignatureError,
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
from keyark.x509.certificates import CertificateFormatError, IssuerNotYetValidError, IssuerValidityError
from keyark.x509.chains import CertificateChainError, CertificateExpiredError, CertificateNotYetValidError

__all__ = [
    "AgentQuotaError",
    "AlreadyDecidedError",
    "AlreadyExpiredError",
    "AlreadyRenewedError",
    "AlreadyRevokedError",
    "AmbiguousIdError",
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
