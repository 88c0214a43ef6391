"""Enrollment: two key pairs, two certificates, one archived key.

    async with EnrollmentClient.open("deployment", identity="client/enroller") as client:
        alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
        print(alice.encryption_certificate.serial_number, alice.receipt.index)

The client trusts the RM with nothing: it verifies the transport certificate before it wraps a key, and the
certificates and the archival receipt before it hands them out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from keyark.client.access.following import Opening
from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource, no_password
from keyark.client.access.renewal import FollowedIdentity
from keyark.client.enrollment.pending import wait_for_decision, without_certificates
from keyark.client.enrollment.prepared import PreparedEnrollment, spki_of
from keyark.client.trust.verification import Enrolled, UnexpectedAnswerError, Verification
from keyark.client.trust.witnesses import ReceiptWitness
from keyark.clock import Clock, SystemClock
from keyark.custody.envelopes import UnknownTransportKeyError
from keyark.errors import InvalidInputError, KeyarkError, UnavailableError
from keyark.keys.key_types import KeyType, PrivateKey, generate, generate_signing
from keyark.keys.spki import encode_spki
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries
from keyark.rpc.errors import error_from_status
from keyark.statements.calls import CallSigner
from keyark.statements.enrollment import (
    PresentCertificate,
    build_statement,
    new_request_id,
)
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.v1 import registration_pb2 as pb
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.common_pb2 import ArchivalPolicy, TransportCertificate
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub

TIMEOUT: Final = 60.0
BATCH: Final = 64


class KeyDelivery(enum.Enum):
    """When the wrapped private key is sent (step 3)."""

    ALONG = "along"
    WHEN_ASKED = "when-asked"


class EnrollmentClient:
    """Enrolls users with the RM of one deployment; use it as an async context manager."""

    def __init__(self, *, home: Home, opening: Opening, clock: Clock) -> None:
        self._opening, self._retries, self._clock = opening, opening.retries, clock
        self._bind(home, opening.open(home, "rm"))

    def _bind(self, home: Home, identity: FollowedIdentity) -> None:
        self._home, self._identity = home, identity
        self._registration = RegistrationServiceStub(identity.channel)
        self._verification = Verification(home)
        self._witness = ReceiptWitness(home, self._registration, self._verification)

    @classmethod
    def open(
        cls,
        home: Path | str | Home,
        *,
        identity: str = "client/enroller",
        password: PasswordSource = no_password,
        clock: Clock | None = None,
        retries: Retries = DEFAULT_RETRIES,
    ) -> Self:
        """Open a channel to the RM as one of the identities of ``home``; if it is renewed, the next call uses the
        new one.

        ``password`` is called if the identity's key is encrypted. The identity signs every call that submits
        requests, at the time of ``clock``. ``retries`` repeats calls, and requests that cannot be served now.
        Raises ConfigurationError.
        """
        opened = home if isinstance(home, Home) else Home.load(home)
        opening = Opening.of(identity, password, retries)
        return cls(home=opened, opening=opening, clock=clock or SystemClock())

    async def __aenter__(self) -> Self:
        """Begin; the home follows its deployment first."""
        self._bind(*await self._opening.follow(self._home, "rm", self._identity))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._identity.channel.close()

    async def form(self, profile: str = "user") -> pb.EnrollmentForm:
        """Step 1: fetch the form and verify its transport certificate up to the trust anchor."""
        response = await call(
            self._registration.GetEnrollmentForm,
            pb.GetEnrollmentFormRequest(
                profile=profile, known_transport_key_id=self._verification.known_key_id
            ),
            timeout=TIMEOUT,
        )
        self._verification.accept_form(response.form)
        return response.form

    async def prepare(
        self,
        *,
        common_name: str,
        email: str,
        profile: str = "user",
        signing_key_type: KeyType | None = None,
        encryption_key_type: KeyType | None = None,
        request_id: bytes | None = None,
        present: PresentCertificate | None = None,
    ) -> PreparedEnrollment:
        """Step 2, the client's half: make both key pairs and sign the statement.

        Key types default to the profile's preferred ones; ``request_id`` is a UUIDv7, 16 bytes. With
        ``present``, the request renews that certificate's pair, for the same name and address.
        """
        form = await self.form(profile)
        signing_key = generate_signing(signing_key_type or KeyType.from_proto(form.signing_key_types[0]))
        encryption_key = _encryption_key(form, encryption_key_type)
        statement = build_statement(
            caller=self._identity.value.spiffe_id,
            request_id=request_id or new_request_id(),
            profile=profile,
            common_name=common_name,
            email=email,
            signing_spki=encode_spki(signing_key.public_key()),
            encryption_spki=spki_of(encryption_key),
            present=present,
        )
        return PreparedEnrollment.of(
            statement,
            signing_key=signing_key,
            encryption_key=encryption_key,
            transport_certificate=form.transport_certificate.certificate,
        )

    async def enroll(
        self,
        *,
        common_name: str,
        email: str,
        profile: str = "user",
        signing_key_type: KeyType | None = None,
        encryption_key_type: KeyType | None = None,
    ) -> Enrolled:
        """Prepare and submit in one call. If keys must survive a crash, prepare, save, and then submit."""
        prepared = await self.prepare(
            common_name=common_name,
            email=email,
            profile=profile,
            signing_key_type=signing_key_type,
            encryption_key_type=encryption_key_type,
        )
        return await self.submit(prepared)

    async def submit(
        self, prepared: PreparedEnrollment, *, delivery: KeyDelivery = KeyDelivery.ALONG
    ) -> Enrolled:
        """Submit one request; submitting it again returns the first outcome (P9). Raises the typed error of the
        request.
        """
        outcome = (await self.submit_many([prepared], delivery=delivery))[0]
        if isinstance(outcome, KeyarkError):
            raise outcome
        return outcome

    async def submit_and_wait(
        self, prepared: PreparedEnrollment, *, seconds: float, delivery: KeyDelivery = KeyDelivery.ALONG
    ) -> Enrolled:
        """Submit a request; if an officer has to decide, ask again for this many seconds until one has."""
        return await wait_for_decision(partial(self.submit, prepared, delivery=delivery), seconds=seconds)

    async def outcome(self, prepared: PreparedEnrollment) -> Enrolled:
        """Return the outcome that the RM recorded for a request; raises NotFoundError if there is none yet."""
        transports = await self._transport_certificates([prepared])
        request = pb.GetEnrollmentRequest(request_id=prepared.statement.request_id)
        response = await call(self._registration.GetEnrollment, request, timeout=TIMEOUT)
        outcome = (await self._outcomes([prepared], [response.enrollment], transports))[0]
        if isinstance(outcome, KeyarkError):
            raise outcome
        return outcome

    async def submit_many(
        self, prepared: Sequence[PreparedEnrollment], *, delivery: KeyDelivery = KeyDelivery.ALONG
    ) -> list[Enrolled | KeyarkError]:
        """Submit up to 64 requests in one call; return a verified outcome or a typed error for each, in order.

        Requests that fail because a service is down or overloaded are submitted again, as ``retries`` of
        ``open`` says.
        """
        if len(prepared) > BATCH:
            raise InvalidInputError(f"One call takes up to {BATCH} requests; split them.", field="items")
        return await self._retries.items(partial(self._submit_once, delivery=delivery), prepared)

    async def _submit_once(
        self, prepared: Sequence[PreparedEnrollment], *, delivery: KeyDelivery
    ) -> list[Enrolled | KeyarkError]:
        transports = await self._transport_certificates(prepared)
        answers = await self.send(prepared, transports if delivery is KeyDelivery.ALONG else {})
        asked = {
            item.statement.enrollment_id: answer.transport_certificate
            for item, answer in zip(prepared, answers, strict=True)
            if isinstance(answer, pb.Enrollment) and answer.state == pb.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
        }
        answers = await self._send_again(prepared, answers, asked)
        refused = [
            item
            for item, answer in zip(prepared, answers, strict=True)
            if isinstance(answer, UnknownTransportKeyError)
        ]
        if refused:  # the transport key was retired since its form was fetched
            anew = await self._transport_certificates(refused)
            answers = await self._send_again(prepared, answers, anew)
        return await self._outcomes(prepared, answers, transports)

    async def _send_again(
        self,
        prepared: Sequence[PreparedEnrollment],
        answers: list[pb.Enrollment | KeyarkError],
        transports: dict[bytes, TransportCertificate],
    ) -> list[pb.Enrollment | KeyarkError]:
        """Send those that ``transports`` names again, wrapped to these; returns the answers with theirs replaced."""
        if not transports:
            return answers
        again = [item for item in prepared if item.statement.enrollment_id in transports]
        second = iter(await self.send(again, transports))
        return [
            next(second) if item.statement.enrollment_id in transports else answer
            for item, answer in zip(prepared, answers, strict=True)
        ]

    async def _outcomes(
        self,
        prepared: Sequence[PreparedEnrollment],
        answers: Sequence[pb.Enrollment | KeyarkError],
        transports: Mapping[bytes, TransportCertificate],
    ) -> list[Enrolled | KeyarkError]:
        """Verify what came; a receipt or head under a transport key that came meanwhile needs a newer form."""
        outcomes = await self._believed(prepared, answers, transports)
        if any(isinstance(outcome, CheckpointSignatureError) for outcome in outcomes):
            await self._transport_certificates(prepared)
            outcomes = await self._believed(prepared, answers, transports)
        return outcomes

    async def _believed(
        self,
        prepared: Sequence[PreparedEnrollment],
        answers: Sequence[pb.Enrollment | KeyarkError],
        transports: Mapping[bytes, TransportCertificate],
    ) -> list[Enrolled | KeyarkError]:
        outcomes = [self._outcome(*pair, transports) for pair in zip(prepared, answers, strict=True)]
        if any(isinstance(outcome, CheckpointSignatureError) for outcome in outcomes):
            return outcomes  # the witnesses are asked of all receipts together, once the key is known
        return await self._witness.confirm(outcomes)

    async def _transport_certificates(
        self, prepared: Sequence[PreparedEnrollment]
    ) -> dict[bytes, TransportCertificate]:
        """Return whom to wrap each key to, by enrollment id; nobody where the profile forbids archival."""
        forms = {profile: await self.form(profile) for profile in {p.statement.profile for p in prepared}}
        return {
            item.statement.enrollment_id: form.transport_certificate
            for item in prepared
            if (form := forms[item.statement.profile]).archival != ArchivalPolicy.ARCHIVAL_POLICY_FORBIDDEN
        }

    async def send(
        self, prepared: Sequence[PreparedEnrollment], transports: dict[bytes, TransportCertificate]
    ) -> list[pb.Enrollment | KeyarkError]:
        """Send requests as they are, each with its key wrapped where ``transports`` has its enrollment id.

        The identity signs the call: its word that it sends these requests, which CM and DRM demand.
        """
        certificates = {t.certificate: t for t in transports.values()}
        keys = {der: self._verification.transport_key(each) for der, each in certificates.items()}
        recipients = {id_: keys[transport.certificate] for id_, transport in transports.items()}
        items = [item.request(recipients.get(item.statement.enrollment_id)) for item in prepared]
        message = pb.SubmitEnrollmentsRequest(items=items, call=self._signed([i.statement for i in items]))
        response = await call(self._registration.SubmitEnrollments, message, timeout=TIMEOUT)
        if len(response.outcomes) != len(items):
            raise UnavailableError("The RM sent a different number of outcomes than requests; try again.")
        return [
            error_from_status(outcome.error) if outcome.HasField("error") else outcome.enrollment
            for outcome in response.outcomes
        ]

    def _signed(self, statements: Sequence[bytes]) -> SignedStatement:
        identity = self._identity.value
        signer = CallSigner(certificate=identity.leaf, private_key=identity.signing_key)
        return signer.sign(statements, time=self._clock.now_us() // 1_000_000).message

    def _outcome(
        self,
        prepared: PreparedEnrollment,
        answer: pb.Enrollment | KeyarkError,
        transports: Mapping[bytes, TransportCertificate],
    ) -> Enrolled | KeyarkError:
        if isinstance(answer, KeyarkError):
            return answer
        if (undecided := without_certificates(answer)) is not None:
            return undecided
        try:
            return self._verify(prepared, answer, transports)
        except KeyarkError as error:
            return error

    def _verify(
        self,
        prepared: PreparedEnrollment,
        answer: pb.Enrollment,
        transports: Mapping[bytes, TransportCertificate],
    ) -> Enrolled:
        """Believe an outcome once it is verified; one whose key was to be archived comes with the receipt."""
        enrolled = self._verification.enrolled(
            prepared.statement, answer, made_with=prepared.transport_certificate
        )
        if enrolled.receipt is None and prepared.statement.enrollment_id in transports:
            raise UnexpectedAnswerError(
                "The RM sent no archival receipt; ask its operator whether the key is archived."
            )
        return enrolled


def _encryption_key(form: pb.EnrollmentForm, key_type: KeyType | None) -> PrivateKey | None:
    """Make the encryption key that a form asks for, none where its profile has signing certificates only."""
    if key_type is None and not form.encryption_key_types:
        return None
    return generate(key_type or KeyType.from_proto(form.encryption_key_types[0]))
