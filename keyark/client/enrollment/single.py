"""Enrolls one user into a folder, going on where an earlier attempt stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.x509.oid import NameOID

from keyark.client.enrollment.client import EnrollmentClient, KeyDelivery
from keyark.client.enrollment.folder import EnrollmentFolder, OtherRequestError
from keyark.client.enrollment.pending import PendingApprovalError
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.errors import KeyarkError
from keyark.folders import working_in
from keyark.keys.key_types import KeyType
from keyark.statements.enrollment import PresentCertificate, Statement
from keyark.x509.names import normalized_name
from keyark.x509.serials import serial_text


@dataclass(frozen=True, kw_only=True)
class EnrollmentOrder:
    """Who is to be enrolled and with which keys; None leaves the choice to the profile."""

    common_name: str
    email: str
    profile: str = "user"
    signing_key_type: KeyType | None = None
    encryption_key_type: KeyType | None = None
    request_id: bytes | None = None
    present: PresentCertificate | None = None
    """What the enrollment renews, if anything."""


@dataclass(frozen=True, kw_only=True)
class UserResult:
    """The result for one user: a folder with everything, or an error.

    Serial numbers are hexadecimal. ``common_name`` is that of the certificates, which an officer may have
    edited.
    """

    email: str
    folder: Path
    request_id: str = ""
    signing_serial: str = ""
    encryption_serial: str = ""
    common_name: str = ""
    error: KeyarkError | None = None

    @property
    def is_pending(self) -> bool:
        """Whether an officer has to decide."""
        return isinstance(self.error, PendingApprovalError)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for --json."""
        result: dict[str, Any] = {
            "email": self.email,
            "folder": str(self.folder),
            "request_id": self.request_id,
        }
        if self.error is not None:
            state = "PENDING_APPROVAL" if self.is_pending else "FAILED"
            told = {
                "state": state,
                "reason": self.error.reason,
                "message": self.error.message,
                "remedy": self.error.remedy,
            }
            return result | self.error.metadata | told if self.is_pending else result | told
        return result | {
            "state": "ISSUED",
            "common_name": self.common_name,
            "signing_serial": self.signing_serial,
            "encryption_serial": self.encryption_serial,
        }


def issued(folder: EnrollmentFolder, statement: Statement) -> UserResult:
    """Return the result that a finished folder stands for."""
    signing, *others = folder.certificates()
    names = signing.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return UserResult(
        email=statement.email,
        folder=folder.path,
        request_id=statement.request_id.hex(),
        signing_serial=serial_text(signing.serial_number),
        encryption_serial=serial_text(others[0].serial_number) if others else "",
        common_name=str(names[0].value) if names else statement.common_name,
    )


def finished_in(folder: EnrollmentFolder, order: EnrollmentOrder) -> UserResult | None:
    """Return the outcome that lies in the folder already, or None.

    Raises FolderTakenError for a folder of something else, OtherRequestError where it is another order's,
    CertificateMismatchError where its keys are others, and OtherFormError where they are kept in another form.
    """
    folder.make_usable()
    saved = folder.saved_statement()
    if saved is not None:
        check_same_order(saved, order, folder)
        folder.check_form()
    if saved is None or not folder.is_finished():
        return None
    folder.check_kept_keys()
    return issued(folder, saved)


async def prepare_in(
    client: EnrollmentClient, folder: EnrollmentFolder, order: EnrollmentOrder
) -> PreparedEnrollment:
    """Return the request that the folder holds, or make one and save it before anything is sent.

    Raises OtherRequestError where the folder holds a request for somebody else.
    """
    folder.check_key_types(order.signing_key_type, order.encryption_key_type)
    prepared = folder.load()
    if prepared is None:
        prepared = await client.prepare(
            common_name=order.common_name,
            email=order.email,
            profile=order.profile,
            signing_key_type=order.signing_key_type,
            encryption_key_type=order.encryption_key_type,
            request_id=order.request_id,
            present=order.present,
        )
        folder.check_key_types(prepared.statement.signing_key_type, prepared.statement.encryption_key_type)
        folder.save(prepared)
    check_same_order(prepared.statement, order, folder)
    return prepared


def check_same_order(statement: Statement, order: EnrollmentOrder, folder: EnrollmentFolder) -> None:
    """Raise OtherRequestError unless the saved request is the one that is asked for."""
    asked = (
        (normalized_name(order.common_name), statement.common_name),
        (order.email, statement.email),
        (order.profile, statement.profile),
        (order.signing_key_type or statement.signing_key_type, statement.signing_key_type),
        (order.encryption_key_type or statement.encryption_key_type, statement.encryption_key_type),
        (order.request_id or statement.request_id, statement.request_id),
        (order.present.serial if order.present else b"", statement.renews),
    )
    if any(wanted != saved for wanted, saved in asked):
        raise OtherRequestError(
            f"{folder.path} has the enrollment of {statement.common_name} <{statement.email}>, request "
            f"{statement.request_id.hex()}. Choose another folder. If that request was refused, you can "
            "delete this one instead."
        )


async def enroll_into(
    client: EnrollmentClient,
    folder: EnrollmentFolder,
    order: EnrollmentOrder,
    *,
    delivery: KeyDelivery = KeyDelivery.ALONG,
    wait_seconds: float = 0,
) -> UserResult:
    """Enroll one user; the keys are on disk before the request is sent.

    If an officer has to decide, wait for ``wait_seconds``; afterwards, the same call goes on. Raises the typed
    error of the request, and FolderInUseError if another run works in the folder.
    """
    with working_in(folder.path):
        if finished := finished_in(folder, order):
            return finished
        prepared = await prepare_in(client, folder, order)
        outcome = await client.submit_and_wait(prepared, seconds=wait_seconds, delivery=delivery)
        folder.finish(prepared, outcome)
        return issued(folder, prepared.statement)
