"""Requests made by hand, so that every part of one can be wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import open_session
from keyark.client.administration import lists as administration
from keyark.client.trust.receipts import list_entries
from keyark.client.trust.verification import Verification
from keyark.clock import Clock, SystemClock
from keyark.custody.envelopes import TransportPublicKey, seal_to_transport
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType, generate
from keyark.keys.spki import encode_spki
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.statements.calls import CallSigner
from keyark.statements.enrollment import new_request_id, sign_statement
from keyark.v1 import registration_pb2 as pb
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub
from keyark.v1.statement_pb2 import EnrollmentStatement


def pkcs8(key: Any) -> bytes:
    """A private key as PKCS#8 DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Enroller:
    """A caller of the RM who may send anything; each request is a good one but for what is named."""

    registration: RegistrationServiceStub
    form: pb.EnrollmentForm
    transport_key: TransportPublicKey
    caller: str
    signer: CallSigner
    clock: Clock

    def request(
        self, *, signing_key: Any = None, encryption_key: Any = None, **wrong: Any
    ) -> pb.EnrollmentRequest:
        """A request; ``fields`` replace those of the statement, and private_key, sealed_for, envelope, signature."""
        signing_key = signing_key or generate(KeyType.EC_P256)
        encryption_key = encryption_key or generate(KeyType.EC_P256)
        statement = wrong.get("statement") or self.statement(
            signing_key, encryption_key, **wrong.get("fields", {})
        )
        signature = wrong.get("signature", sign_statement(statement, signing_key))
        envelope = wrong.get("envelope")
        if envelope is None:
            private_key = wrong.get("private_key") or pkcs8(encryption_key)
            envelope = self.envelope(private_key, wrong.get("sealed_for", statement))
        return pb.EnrollmentRequest(statement=statement, signature=signature, wrapped_private_key=envelope)

    def statement(self, signing_key: Any, encryption_key: Any, **fields: Any) -> bytes:
        """A serialized statement, nothing of it checked."""
        values = {
            "version": 1,
            "trust_domain": "example.org",
            "caller": self.caller,
            "request_id": new_request_id(),
            "profile": "user",
            "common_name": "Alice Example",
            "email": "alice@example.org",
            "signing_spki": encode_spki(signing_key.public_key()),
            "encryption_spki": encode_spki(encryption_key.public_key()),
        }
        return EnrollmentStatement(**(values | fields)).SerializeToString(deterministic=True)

    def envelope(
        self, private_key: bytes, statement: bytes, *, key: TransportPublicKey | None = None
    ) -> bytes:
        """Seal anything to the transport key, for a statement."""
        return seal_to_transport(
            private_key,
            transport_public_key=key or self.transport_key,
            statement_sha256=sha256(statement).digest(),
        )

    def call(self, *items: pb.EnrollmentRequest) -> SignedStatement:
        """The caller's signed word that it sends these requests."""
        now = self.clock.now_us() // 1_000_000
        return self.signer.sign([item.statement for item in items], time=now).message

    async def send(self, *items: pb.EnrollmentRequest) -> list[pb.Enrollment | KeyarkError]:
        """Send requests in one call; an outcome for each."""
        message = pb.SubmitEnrollmentsRequest(items=items, call=self.call(*items))
        response = await call(self.registration.SubmitEnrollments, message, timeout=30)
        return [
            error_from_status(o.error) if o.HasField("error") else o.enrollment for o in response.outcomes
        ]


@asynccontextmanager
async def enrolling(
    home: Home, identity: str = "client/enroller", clock: Clock | None = None
) -> AsyncIterator[Enroller]:
    """Be a caller of the RM; ``clock`` is the one of its own machine."""
    local = home.identity(identity, no_password)
    async with open_session(home, "rm", identity=identity) as session:
        registration, verification = RegistrationServiceStub(session.channel), Verification(home)
        request = pb.GetEnrollmentFormRequest(
            profile="user", known_transport_key_id=verification.known_key_id
        )
        form = (await call(registration.GetEnrollmentForm, request, timeout=30)).form
        yield Enroller(
            registration=registration,
            form=form,
            transport_key=verification.accept_form(form),
            caller=f"spiffe://{home.config.trust_domain}/{identity}",
            signer=CallSigner(certificate=local.leaf, private_key=local.signing_key),
            clock=clock or SystemClock(),
        )


@dataclass(frozen=True)
class Holdings:
    """What was issued and archived, and what was refused."""

    certificates: int
    keys: int
    rejections: list[str]


async def holdings(home: Home, *, refused_by: str = "rm") -> Holdings:
    """Count certificates and keys, and list the reasons of a subsystem's logged refusals."""
    async with open_session(home, "cm", identity="officer/officer") as session:
        certificates = len([c async for c in administration.list_certificates(session)])
    async with open_session(home, "drm", identity="agent/alice") as session:
        keys = len([k async for k in administration.list_keys(session)])
    async with open_session(home, refused_by, identity="auditor/auditor") as session:
        rejections = [
            AuditDetails.FromString(entry.event.details).reason
            async for entry in list_entries(session)
            if AuditEvent.FromString(entry.event.leaf).type == EventType.EVENT_TYPE_REQUEST_REJECTED
        ]
    return Holdings(certificates, keys, rejections)
