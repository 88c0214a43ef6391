"""What officers and agents look at: enrollments, certificates, archived keys; paged, never key material."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

from keyark.client.access.sessions import Session
from keyark.client.administration.paging import TIMEOUT, Paging, entries
from keyark.client.trust.receipts import archive_verifier
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.errors import InvalidInputError, KeyarkError, Kind, NotFoundError
from keyark.rpc.calling.channels import call
from keyark.text.characters import counted
from keyark.transparency.receipts import ArchivalReceipt
from keyark.v1 import certificates_pb2, recovery_pb2, registration_pb2
from keyark.v1.certificates_pb2_grpc import CertificateAdminServiceStub
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub
from keyark.v1.registration_pb2_grpc import RegistrationAdminServiceStub
from keyark.x509.names import folded_name, normalized_name

PAIR: Final = 2
ANY_CEREMONY: Final = recovery_pb2.CeremonyState.CEREMONY_STATE_UNSPECIFIED
ANY_STATE: Final = registration_pb2.EnrollmentState.ENROLLMENT_STATE_UNSPECIFIED


class AmbiguousOwnerError(KeyarkError):
    """Several people have the name that was given."""

    reason = "AMBIGUOUS_OWNER"
    kind = Kind.INVALID


class OwnerMismatchError(KeyarkError):
    """A recovery was asked for by its owner, and the keys' receipts name somebody else."""

    reason = "OWNER_MISMATCH"
    kind = Kind.PRECONDITION


async def list_enrollments(
    session: Session,
    state: registration_pb2.EnrollmentState.ValueType = ANY_STATE,
    paging: Paging | None = None,
    *,
    id_prefix: str = "",
) -> AsyncIterator[registration_pb2.Enrollment]:
    """Yield every enrollment, or those in a state, oldest first; ``session`` is an officer's with the RM.

    ``id_prefix`` is what their ids begin with: at least 4 hexadecimal digits. Those that wait for an officer
    come in the order of their expiry.
    """
    stub = RegistrationAdminServiceStub(session.channel)
    new_request = partial(
        registration_pb2.ListEnrollmentsRequest, state=state, enrollment_id_prefix=id_prefix
    )
    async for enrollment in entries(stub.ListEnrollments, new_request, lambda page: page.enrollments, paging):
        yield enrollment


async def get_enrollment(session: Session, enrollment_id: bytes) -> registration_pb2.Enrollment:
    """Return any enrollment (id of 32 bytes), to an officer of the RM; raises NotFoundError."""
    stub = RegistrationAdminServiceStub(session.channel)
    request = registration_pb2.InspectEnrollmentRequest(enrollment_id=enrollment_id)
    return (await call(stub.InspectEnrollment, request, timeout=TIMEOUT)).enrollment


async def list_certificates(
    session: Session,
    matching: certificates_pb2.CertificateFilter | None = None,
    paging: Paging | None = None,
) -> AsyncIterator[certificates_pb2.Certificate]:
    """Yield the certificates that match, or all; ``session`` is an officer's with the CM.

    By name, by e-mail address or without a filter, the oldest comes first; otherwise those of each state in the
    order of their expiry. Raises InvalidInputError for a malformed filter.
    """
    stub = CertificateAdminServiceStub(session.channel)
    new_request = partial(certificates_pb2.ListCertificatesRequest, filter=matching)
    found = entries(
        stub.ListCertificates, new_request, lambda page: page.certificates, paging, most_per_row=PAIR
    )
    async for certificate in found:
        yield certificate


async def get_certificate(session: Session, serial: bytes) -> certificates_pb2.Certificate:
    """Return the certificate with this serial number (big-endian); raises NotFoundError."""
    stub = CertificateAdminServiceStub(session.channel)
    request = certificates_pb2.GetCertificateRequest(serial=serial)
    return (await call(stub.GetCertificate, request, timeout=TIMEOUT)).certificate


async def get_refusal(session: Session, enrollment_id: bytes) -> certificates_pb2.GetRefusalResponse | None:
    """Return why the CM refused an enrollment (32 bytes) permanently, or None if it did not."""
    stub = CertificateAdminServiceStub(session.channel)
    request = certificates_pb2.GetRefusalRequest(enrollment_id=enrollment_id)
    try:
        return await call(stub.GetRefusal, request, timeout=TIMEOUT)
    except KeyarkError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return None


async def list_keys(
    session: Session, key_filter: recovery_pb2.KeyFilter | None = None, paging: Paging | None = None
) -> AsyncIterator[recovery_pb2.ArchivedKey]:
    """Yield the archived keys that match a filter, oldest first; ``session`` is an agent's with the DRM."""
    stub = KeyRecoveryServiceStub(session.channel)
    wanted = recovery_pb2.KeyFilter()
    if key_filter is not None:
        wanted.CopyFrom(key_filter)
    if wanted.HasField("owner"):
        wanted.owner = normalized_name(wanted.owner)
    new_request = partial(recovery_pb2.ListKeysRequest, filter=wanted)
    async for key in entries(stub.ListKeys, new_request, lambda page: page.keys, paging):
        yield key


async def keys_of_person(session: Session, owner: str) -> list[recovery_pb2.ArchivedKey]:
    """Return the certified keys of one person, oldest first; ``session`` is an agent's with the DRM.

    An e-mail address names its mailbox, never a common name. A common name, in any case, is accepted if all its
    keys belong to one mailbox. Raises NotFoundError, and AmbiguousOwnerError with the candidates.
    """
    if not owner.strip():
        raise InvalidInputError("The owner is empty, which would mean everybody; name one.", field="owner")
    wanted = recovery_pb2.KeyFilter(owner=owner, state=recovery_pb2.KeyState.KEY_STATE_CERTIFIED)
    found = [key async for key in list_keys(session, wanted)]
    if "@" in owner:
        found = [key for key in found if key.email.lower() == owner.lower()]
    if not found:
        raise NotFoundError(
            f"No certified key of {owner} is archived; `keyark keys list` shows the archived keys."
        )
    if len(mailboxes := Counter(key.email.lower() for key in found)) > 1:
        candidates = ", ".join(
            f"{mailbox} ({counted(count, 'key')})" for mailbox, count in sorted(mailboxes.items())
        )
        raise AmbiguousOwnerError(
            f"Several people have the name {owner!r}; name one by address: {candidates}."
        )
    return sorted(found, key=lambda key: key.archived_time_us)


def check_owner(receipts: Sequence[ArchivalReceipt], owner: str) -> None:
    """Raise OwnerMismatchError unless every receipt names this owner: an address, or the name of one person."""
    wanted, people = folded_name(owner), [receipt.details for receipt in receipts]
    if "@" in owner:
        fits = all(person.email.lower() == owner.lower() for person in people)
    else:
        fits = all(folded_name(person.common_name) == wanted for person in people)
        fits = fits and len({person.email.lower() for person in people}) == 1
    if not fits:
        named = ", ".join(sorted({f"{person.common_name} <{person.email}>" for person in people}))
        raise OwnerMismatchError(
            f"You asked for keys of {owner!r}, but the archive listed keys whose receipts name {named}. "
            "Tell the archive's operator. Name the key with --key or --cert instead."
        )


async def get_key(session: Session, key_id: bytes) -> recovery_pb2.ArchivedKey:
    """Return the archived key with this key id (32 bytes); raises NotFoundError."""
    stub = KeyRecoveryServiceStub(session.channel)
    return (await call(stub.GetKey, recovery_pb2.GetKeyRequest(key_id=key_id), timeout=TIMEOUT)).key


async def list_ceremonies(
    session: Session,
    state: recovery_pb2.CeremonyState.ValueType = ANY_CEREMONY,
    paging: Paging | None = None,
    *,
    id_prefix: str = "",
) -> AsyncIterator[recovery_pb2.Ceremony]:
    """Yield ceremonies, or those in a state, oldest first, for an agent or auditor of the DRM; they are
    unverified.

    ``id_prefix`` is what their ids begin with: at least 4 hexadecimal digits.
    """
    stub = KeyRecoveryServiceStub(session.channel)
    new_request = partial(recovery_pb2.ListCeremoniesRequest, state=state, ceremony_id_prefix=id_prefix)
    async for ceremony in entries(stub.ListCeremonies, new_request, lambda page: page.ceremonies, paging):
        yield ceremony


async def get_ceremony(session: Session, ceremony_id: bytes) -> recovery_pb2.Ceremony:
    """Return the ceremony with this id (16 bytes); ``CeremonyReview`` verifies it. Raises NotFoundError."""
    stub = KeyRecoveryServiceStub(session.channel)
    request = recovery_pb2.GetCeremonyRequest(ceremony_id=ceremony_id)
    found = (await call(stub.GetCeremony, request, timeout=TIMEOUT)).ceremony
    if found.ceremony_id != ceremony_id:
        raise UnexpectedAnswerError("The archive showed a different ceremony than the one you named.")
    return found


async def list_storage_keys(session: Session) -> list[recovery_pb2.StorageKey]:
    """Return all storage key generations, newest last, for an agent or auditor of the DRM; they are unverified."""
    stub = KeyRecoveryServiceStub(session.channel)
    answer = await call(stub.ListStorageKeys, recovery_pb2.ListStorageKeysRequest(), timeout=TIMEOUT)
    return list(answer.storage_keys)


@dataclass(frozen=True, kw_only=True)
class ProvenKey:
    """An archived key and its archival receipt, which proves only the fields of ``view`` that ``PROVEN`` names."""

    view: recovery_pb2.ArchivedKey
    receipt: ArchivalReceipt

    PROVEN: ClassVar[frozenset[str]] = frozenset(
        {"key_id", "enrollment_id", "caller", "common_name", "email", "archived_time_us", "log_index"}
    )

    @property
    def unproven(self) -> list[str]:
        """The fields of ``view`` that only the archive asserts."""
        return [field.name for field, _ in self.view.ListFields() if field.name not in self.PROVEN]


async def get_proven_key(session: Session, key_id: bytes) -> ProvenKey:
    """Return the archived key with this key id (32 bytes), if its receipt proves the same facts.

    Raises NotFoundError, UnexpectedAnswerError and the errors of ``ReceiptVerifier.verify``.
    """
    stub = KeyRecoveryServiceStub(session.channel)
    answer = await call(stub.GetKey, recovery_pb2.GetKeyRequest(key_id=key_id), timeout=TIMEOUT)
    receipt, view = archive_verifier(session.home).verify(answer.receipt), answer.key
    event, details = receipt.event, receipt.details
    shown = (view.key_id, view.enrollment_id, view.caller, view.common_name, view.email)
    proven = (key_id, event.enrollment_id, details.caller, details.common_name, details.email)
    if event.encryption_spki_sha256 != key_id or shown != proven:
        raise UnexpectedAnswerError(
            "The archive showed a key that differs from its receipt; ask its operator."
        )
    if (view.archived_time_us, view.log_index) != (event.time_us, receipt.index):
        raise UnexpectedAnswerError(
            "The archive showed a time that differs from the key's receipt; ask its operator."
        )
    return ProvenKey(view=view, receipt=receipt)


async def deactivate_key(session: Session, key_id: bytes, *, reason: str) -> recovery_pb2.ArchivedKey:
    """Keep a key (id of 32 bytes) from being recovered; raises NotFoundError and KeyDeactivatedError."""
    stub = KeyRecoveryServiceStub(session.channel)
    request = recovery_pb2.DeactivateKeyRequest(key_id=key_id, reason=reason)
    return (await call(stub.DeactivateKey, request, timeout=TIMEOUT)).key


async def activate_key(session: Session, key_id: bytes, *, reason: str) -> recovery_pb2.ArchivedKey:
    """Allow a key (id of 32 bytes) to be recovered again; raises NotFoundError."""
    stub = KeyRecoveryServiceStub(session.channel)
    request = recovery_pb2.ActivateKeyRequest(key_id=key_id, reason=reason)
    return (await call(stub.ActivateKey, request, timeout=TIMEOUT)).key
