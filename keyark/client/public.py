"""Every name of `keyark.client`, which takes them from here once somebody asks for one."""

from keyark.client import errors
from keyark.client.access.home import Home, HomeConfig
from keyark.client.access.passwords import PasswordSource, new_password, no_password
from keyark.client.access.sessions import Session, open_session
from keyark.client.administration.approvals import ApprovalClient
from keyark.client.administration.lists import (
    ProvenKey,
    activate_key,
    deactivate_key,
    get_ceremony,
    get_certificate,
    get_enrollment,
    get_key,
    get_proven_key,
    get_refusal,
    keys_of_person,
    list_ceremonies,
    list_certificates,
    list_enrollments,
    list_keys,
    list_storage_keys,
)
from keyark.client.administration.paging import Paging
from keyark.client.administration.revocation import (
    hold_certificates,
    publish_crls,
    release_certificates,
    revoke_certificates,
    revoke_own_certificates,
)
from keyark.client.audit.log_entries import EntryFilter, PersonTrail, Proof, ReadEntry
from keyark.client.audit.log_heads import LogAudit, audit_logs
from keyark.client.audit.log_reading import LogPositions, LogReading
from keyark.client.blocking import (
    BlockingApprovalClient,
    BlockingEnrollmentClient,
    BlockingLogReading,
    BlockingRecoveryClient,
    BlockingSession,
    BlockingWitnesses,
)
from keyark.client.enrollment.batch import BatchEnrollment, enroll_many
from keyark.client.enrollment.client import EnrollmentClient, KeyDelivery
from keyark.client.enrollment.folder import EnrollmentFolder, KeyFormat
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.client.enrollment.single import EnrollmentOrder, UserResult, enroll_into
from keyark.client.enrollment.user_list import read_users
from keyark.client.errors import *  # noqa: F403 — a class for every reason
from keyark.client.recovery.client import RecoveryClient
from keyark.client.recovery.delivery import KeyFiles
from keyark.client.recovery.recipients import RecoveredKey
from keyark.client.recovery.review import ReviewedCeremony
from keyark.client.trust.receipts import AuditedLog, list_entries, verify_log, verify_receipt_file
from keyark.client.trust.verification import Enrolled
from keyark.client.trust.witnesses import Witnesses
from keyark.custody.agents import AgentShareKey
from keyark.keys.key_types import KeyType
from keyark.keys.password_files import read_password
from keyark.rpc.calling.retries import NO_RETRIES, Retries
from keyark.statements.approvals import Approval, Edits
from keyark.statements.enrollment import PresentCertificate, Statement
from keyark.transparency.receipts import ArchivalReceipt
from keyark.v1.audit_pb2 import LogEntry
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, Crl
from keyark.v1.recovery_pb2 import ArchivedKey, Ceremony, CeremonyState, KeyFilter, KeyState, StorageKey
from keyark.v1.registration_pb2 import Enrollment, EnrollmentForm, EnrollmentState
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.pkcs12 import Pkcs12Form

__all__: list[str] = [
    "NO_RETRIES",
    "AgentShareKey",
    "Approval",
    "ApprovalClient",
    "ArchivalReceipt",
    "ArchivedKey",
    "AuditedLog",
    "BatchEnrollment",
    "BlockingApprovalClient",
    "BlockingEnrollmentClient",
    "BlockingLogReading",
    "BlockingRecoveryClient",
    "BlockingSession",
    "BlockingWitnesses",
    "Ceremony",
    "CeremonyState",
    "Certificate",
    "CertificateFilter",
    "Crl",
    "Edits",
    "Enrolled",
    "Enrollment",
    "EnrollmentClient",
    "EnrollmentFolder",
    "EnrollmentForm",
    "EnrollmentOrder",
    "EnrollmentState",
    "EntryFilter",
    "Home",
    "HomeConfig",
    "KeyDelivery",
    "KeyFiles",
    "KeyFilter",
    "KeyFormat",
    "KeyState",
    "KeyType",
    "LogAudit",
    "LogEntry",
    "LogPositions",
    "LogReading",
    "Paging",
    "PasswordSource",
    "PersonTrail",
    "Pkcs12Form",
    "PreparedEnrollment",
    "PresentCertificate",
    "Proof",
    "ProvenKey",
    "ReadEntry",
    "RecoveredKey",
    "RecoveryClient",
    "Retries",
    "ReviewedCeremony",
    "RevocationReason",
    "Session",
    "Statement",
    "StorageKey",
    "UserResult",
    "Witnesses",
    "activate_key",
    "audit_logs",
    "deactivate_key",
    "enroll_into",
    "enroll_many",
    "errors",
    "get_ceremony",
    "get_certificate",
    "get_enrollment",
    "get_key",
    "get_proven_key",
    "get_refusal",
    "hold_certificates",
    "keys_of_person",
    "list_ceremonies",
    "list_certificates",
    "list_enrollments",
    "list_entries",
    "list_keys",
    "list_storage_keys",
    "new_password",
    "no_password",
    "open_session",
    "publish_crls",
    "read_password",
    "read_users",
    "release_certificates",
    "revoke_certificates",
    "revoke_own_certificates",
    "verify_log",
    "verify_receipt_file",
]
__all__ += errors.__all__
