"""The kinds of calls that a load test makes. A new kind is a class like these and a row in ``OPERATIONS``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography.hazmat.primitives.serialization import load_der_private_key

from keyark.custody.envelopes import seal_to_transport
from keyark.errors import ConfigurationError, KeyarkError, UnavailableError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import PrivateKey, narrow_signing_key
from keyark.keys.spki import encode_spki
from keyark.load.driving.connections import TIMEOUT, Connections
from keyark.load.driving.known import Issued
from keyark.load.driving.loops import Mix, Operation
from keyark.load.driving.recovering import Recover
from keyark.load.measuring.checking import AnswerChecker, WrongAnswerError
from keyark.load.planning.keys import KeysExhaustedError
from keyark.load.planning.plan import CERTIFICATE, ENROLL, OUTCOME, RECOVER, STATUS, Delivery
from keyark.rpc.calling.channels import call
from keyark.statements.calls import CallSigner
from keyark.statements.enrollment import (
    Statement,
    build_statement,
    new_request_id,
    sign_statement,
)
from keyark.v1 import certificates_pb2 as cm
from keyark.v1 import registration_pb2 as rm
from keyark.v1.certificates_pb2_grpc import CertificateAdminServiceStub, CertificateStatusServiceStub
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A call with its enrollments: statements, and the message that carries them."""

    statements: Sequence[Statement]
    message: rm.SubmitEnrollmentsRequest
    wrapped: Sequence[bytes]


class Enroll:
    """Enrollments, ``batch`` per call, the private key sent along or once it is asked for."""

    kind = ENROLL

    def __init__(
        self, connections: Connections, checker: AnswerChecker, keys: Iterator[tuple[bytes, bytes]]
    ) -> None:
        plan = connections.plan
        self._plan, self._checker, self._keys, self._known = plan, checker, keys, connections.known
        self._caller = SpiffeId(connections.home.config.trust_domain, plan.client)
        self._stub = RegistrationServiceStub(connections.channel("rm", plan.client))
        identity = connections.identity(plan.client)
        self._signer = CallSigner(certificate=identity.leaf, private_key=identity.signing_key)
        self._number = 0

    def prepare(self) -> Prepared:
        """Sign statements and wrap their keys, the work of the users' own machines; the last call may be smaller."""
        keys = list(itertools.islice(self._keys, self._plan.batch))
        if not keys:
            raise KeysExhaustedError("All keys that were made for this run are used; make more.")
        made = [self._item(*pair) for pair in keys]
        return Prepared(
            statements=[statement for statement, _, _ in made],
            message=rm.SubmitEnrollmentsRequest(items=[item for _, item, _ in made]),
            wrapped=[wrapped for _, _, wrapped in made],
        )

    def _item(
        self, signing_der: bytes, encryption_der: bytes
    ) -> tuple[Statement, rm.EnrollmentRequest, bytes]:
        signing = narrow_signing_key(_load(signing_der))
        self._number += 1
        name = new_request_id()
        statement = build_statement(
            caller=self._caller,
            request_id=name,
            profile=self._plan.profile,
            common_name=f"Load Test {self._number}",
            email=f"load-{name.hex()}@example.org",
            signing_spki=encode_spki(signing.public_key()),
            encryption_spki=encode_spki(_load(encryption_der).public_key()),
        )
        wrapped = seal_to_transport(
            encryption_der,
            transport_public_key=self._checker.transport_key,
            statement_sha256=statement.sha256,
        )
        along = wrapped if self._plan.delivery is Delivery.ALONG else b""
        signature = sign_statement(statement.raw, signing)
        item = rm.EnrollmentRequest(statement=statement.raw, signature=signature, wrapped_private_key=along)
        return statement, item, wrapped

    async def send(self, request: Prepared) -> Sequence[rm.EnrollmentOutcome]:
        """Send the call, and a second one where the keys are asked for; returns the outcomes."""
        outcomes = await self._submit(request.message)
        if self._plan.delivery is Delivery.ALONG:
            return outcomes
        asked = [
            position
            for position, outcome in enumerate(outcomes)
            if outcome.enrollment.state == rm.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
        ]
        for position in asked:
            request.message.items[position].wrapped_private_key = request.wrapped[position]
        again = rm.SubmitEnrollmentsRequest(items=[request.message.items[position] for position in asked])
        second = dict(zip(asked, await self._submit(again) if asked else [], strict=True))
        return [second.get(position, outcome) for position, outcome in enumerate(outcomes)]

    async def _submit(self, message: rm.SubmitEnrollmentsRequest) -> Sequence[rm.EnrollmentOutcome]:
        """Sign the call when it is made, as the SDK does, and make it."""
        signed = self._signer.sign([item.statement for item in message.items], time=int(time.time()))
        message.call.CopyFrom(signed.message)
        response = await call(self._stub.SubmitEnrollments, message, timeout=TIMEOUT)
        if len(response.outcomes) != len(message.items):
            raise UnavailableError("The RM answered another number of outcomes than it was sent.")
        return response.outcomes

    def check(self, request: Prepared, answer: Sequence[rm.EnrollmentOutcome]) -> list[KeyarkError]:
        """Check every outcome; good ones are what queries ask about later."""
        wrong = []
        for statement, outcome in zip(request.statements, answer, strict=True):
            if error := self._checker.failure(statement, outcome):
                wrong.append(error)
            elif self._plan.queries or self._plan.known:
                certificate = outcome.enrollment.certificates.encryption_certificate
                self._known.add(Issued(statement.request_id, certificate))
        return wrong

    def size(self, request: Prepared) -> int:
        """Enrollments in the call."""
        return len(request.statements)


class Query:
    """Asks about an enrollment that is known; what there is to ask is a subclass's business."""

    kind = ""

    def __init__(self, connections: Connections) -> None:
        self._known = connections.known

    def prepare(self) -> Issued:
        """Choose an enrollment."""
        return self._known.choose()

    def check(self, request: Issued, answer: Any) -> list[KeyarkError]:
        """The answer is right where it is about the enrollment that was asked about."""
        if self.fits(request, answer):
            return []
        return [WrongAnswerError("The answer is about another certificate, or not what is known of it.")]

    def fits(self, request: Issued, answer: Any) -> bool:
        """Whether the answer is about the enrollment."""
        raise NotImplementedError

    def size(self, request: Issued) -> int:
        """One."""
        return 1


class StatusQuery(Query):
    """Is this certificate in force? Asked of the CM by a client."""

    kind = STATUS

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._stub = CertificateStatusServiceStub(connections.channel("cm", connections.plan.client))

    async def send(self, request: Issued) -> cm.GetCertificateStatusResponse:
        """Ask."""
        message = cm.GetCertificateStatusRequest(serial=request.serial)
        return await call(self._stub.GetCertificateStatus, message, timeout=TIMEOUT)

    def fits(self, request: Issued, answer: cm.GetCertificateStatusResponse) -> bool:
        """It is in force: nobody revokes what a load test enrolls."""
        return answer.state == cm.CERTIFICATE_STATE_VALID


class CertificateQuery(Query):
    """Look a certificate up by its serial number, as an officer."""

    kind = CERTIFICATE

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._stub = CertificateAdminServiceStub(connections.channel("cm", connections.plan.officer))

    async def send(self, request: Issued) -> cm.GetCertificateResponse:
        """Ask."""
        message = cm.GetCertificateRequest(serial=request.serial)
        return await call(self._stub.GetCertificate, message, timeout=TIMEOUT)

    def fits(self, request: Issued, answer: cm.GetCertificateResponse) -> bool:
        """It is the very certificate that was issued."""
        return answer.certificate.certificate == request.certificate


class OutcomeQuery(Query):
    """Where does my enrollment stand? Asked of the RM by a client."""

    kind = OUTCOME

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._stub = RegistrationServiceStub(connections.channel("rm", connections.plan.client))

    async def send(self, request: Issued) -> rm.GetEnrollmentResponse:
        """Ask."""
        message = rm.GetEnrollmentRequest(request_id=request.request_id)
        return await call(self._stub.GetEnrollment, message, timeout=TIMEOUT)

    def fits(self, request: Issued, answer: rm.GetEnrollmentResponse) -> bool:
        """It is the outcome that was delivered."""
        return answer.enrollment.certificates.encryption_certificate == request.certificate


OPERATIONS: Final[dict[str, Callable[[Connections], Operation]]] = {
    STATUS: StatusQuery,
    CERTIFICATE: CertificateQuery,
    OUTCOME: OutcomeQuery,
    RECOVER: Recover,
}
"""The kinds of calls apart from enrollments, by the name that the plan's mix uses."""


def build_mix(connections: Connections, enroll: Enroll, *, seed: int) -> Mix:
    """Return the calls of the plan's mix; raises ConfigurationError for a kind that there is not."""
    weights = connections.plan.mix
    if unknown := weights.keys() - OPERATIONS.keys() - {ENROLL}:
        raise ConfigurationError(
            f"There is no kind of call {min(unknown)!r}. These exist: {', '.join((ENROLL, *OPERATIONS))}."
        )
    return Mix(
        [(enroll if kind == ENROLL else OPERATIONS[kind](connections), w) for kind, w in weights.items()],
        seed=seed,
    )


def _load(der: bytes) -> PrivateKey:
    """Load a key of the cache; OpenSSL's full check of an RSA key would take longer than enrolling it."""
    return cast("PrivateKey", load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True))
