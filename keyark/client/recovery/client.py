"""Recovery agents' client: ask for keys, review, approve, reject, cancel, collect; change agents and storage keys.

async with RecoveryClient.open("deployment", identity="agent/bob") as bob:
    ceremony = await bob.review(ceremony_id)      # verified: who asks, for whose keys, why
    await bob.approve(ceremony)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource, no_password
from keyark.client.access.sessions import Session
from keyark.client.access.transport_memory import follow_transport_keys
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.approvable import check_current, check_people
from keyark.client.recovery.archive_changes import ArchiveChanges
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.client.recovery.decisions import answer_to, not_canceled, not_logged
from keyark.client.recovery.recipients import RecoveredKey
from keyark.client.recovery.review import (
    ROTATE,
    CeremonyReview,
    ReviewedCeremony,
    check_complete,
    check_requested,
    confirmed,
    different_ceremony,
    token_of,
)
from keyark.client.trust.witnesses import Witnesses
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import Share
from keyark.custody.storage import HybridPublicKey
from keyark.custody.token import open_share
from keyark.errors import InvalidInputError, KeyarkError
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries
from keyark.statements.ceremonies import (
    agent_key_of,
    ceremony_digest,
    seal_released_share,
    sign_decision,
    sign_request,
)
from keyark.statements.enrollment import new_request_id
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.v1 import recovery_pb2 as pb
from keyark.v1.ceremony_pb2 import CeremonyStatement, CeremonyType, Decision, SignedStatement
from keyark.v1.common_pb2 import PageRequest
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub

TIMEOUT: Final = 60.0
PAGE: Final = 200
_T = TypeVar("_T")


class RecoveryClient:
    """An agent's client for the DRM of a home."""

    def __init__(self, session: Session, keys: AgentKeys, *, followers: Sequence[Session]) -> None:
        """Take a session of the DRM, and those of RM and CM, who follow its log."""
        self.session = session
        self._witnesses = Witnesses(archive=session, followers=followers)
        self.identity = f"{keys.signer.identity.role}/{keys.signer.identity.name}"
        self._stub = KeyRecoveryServiceStub(session.channel)
        self._keys = keys
        self._review = CeremonyReview(session.home)
        self._changes = ArchiveChanges(archive=session, witnesses=self._witnesses, folder=keys.folder)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        home: Path | str | Home,
        *,
        identity: str,
        password: PasswordSource = no_password,
        retries: Retries = DEFAULT_RETRIES,
    ) -> AsyncIterator[RecoveryClient]:
        """Open channels to the DRM and its witnesses as one of the agents of ``home`` ("agent/bob").

        ``password`` is called if the agent's keys are encrypted. ``retries`` repeats idempotent calls; a
        decision is never repeated. Raises ConfigurationError.
        """
        opened = home if isinstance(home, Home) else Home.load(home)
        keys = AgentKeys.of(opened, identity, password)
        async with Witnesses.open(
            opened, identity=identity, password=lambda _: keys.password, retries=retries
        ) as witnesses:
            yield cls(witnesses.archive, keys, followers=witnesses.followers)

    async def request_keys(
        self, key_ids: Sequence[bytes], *, reason: str, owner: str = ""
    ) -> ReviewedCeremony:
        """Ask for archived keys by their ids (32 bytes each, up to 100); either all are recovered or none.

        ``owner`` is whose keys they should be, an address or a name. If the keys' receipts name somebody else,
        the recovery is canceled and OwnerMismatchError raised. The one-time private key is on disk before
        anybody can seal to it.
        """
        ceremony_id = new_request_id()
        recipient = self._keys.recipients.create(ceremony_id)
        statement = CeremonyStatement(
            type=CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
            ceremony_id=ceremony_id,
            reason=reason,
            key_ids=sorted(set(key_ids)),
            recipient_public_key=recipient.public_key.to_bytes(),
        )
        try:
            return await self._request(statement, owner=owner)
        except KeyarkError as error:
            if not error.kind.leaves_outcome_unknown:
                self._keys.recipients.delete(ceremony_id)
            raise

    async def change_agents(
        self, agents: Sequence[AgentShareKey], quorum: int, *, reason: str
    ) -> ReviewedCeremony:
        """Ask for a new set of agents, all named in the order of their shares, or for a new quorum."""
        return await self._request(
            CeremonyStatement(
                type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
                ceremony_id=new_request_id(),
                reason=reason,
                agents=[agent_key_of(agent) for agent in agents],
                quorum=quorum,
            )
        )

    async def rotate_storage_key(self, *, reason: str) -> ReviewedCeremony:
        """Ask for a new storage key generation, split among the current agents."""
        return await self._request(
            CeremonyStatement(type=ROTATE, ceremony_id=new_request_id(), reason=reason)
        )

    async def reseal_keys(self, *, reason: str) -> ReviewedCeremony:
        """Ask that the keys of all older generations are sealed under the newest storage key."""
        pins = await self.pins()
        return await self._request(
            CeremonyStatement(
                type=CeremonyType.CEREMONY_TYPE_RESEAL_KEYS,
                ceremony_id=new_request_id(),
                reason=reason,
                storage_key_id=pins.storage_keys[-1],
            )
        )

    async def _request(self, statement: CeremonyStatement, *, owner: str = "") -> ReviewedCeremony:
        signed = sign_request(statement, self._keys.signer)
        answer = await call(
            self._stub.RequestCeremony, pb.RequestCeremonyRequest(request=signed), timeout=TIMEOUT
        )
        try:
            opened = await self._reviewed(answer.ceremony, statement.ceremony_id)
            check_requested(opened, signed, owner)
        except KeyarkError as refusal:
            refusal.message += f" {await self._withdraw(statement.ceremony_id, signed)}"
            refusal.args = (refusal.message,)
            raise
        return opened

    async def _withdraw(self, ceremony_id: bytes, signed: SignedStatement) -> str:
        """Cancel a ceremony that was opened and cannot be verified here; says what is left of it."""
        request = pb.CancelCeremonyRequest(ceremony_id=ceremony_id)
        try:
            answer = await call(self._stub.CancelCeremony, request, timeout=TIMEOUT)
        except KeyarkError as error:
            return (
                f"The ceremony {ceremony_id.hex()} is nevertheless open, and could not be canceled: "
                f"{error.message} Cancel it with `keyark recover cancel {ceremony_id.hex()}`."
            )
        with suppress(KeyarkError):
            if self._review.ending(answer.ceremony.closing_proof, ceremony_digest(signed.statement)):
                return "The ceremony was canceled, so nothing is left of it."
        return (
            f"The archive says that the ceremony {ceremony_id.hex()} was canceled, but does not prove it. "
            "Ask the other agents not to approve it."
        )

    async def ceremonies(
        self, state: pb.CeremonyState.ValueType = pb.CeremonyState.CEREMONY_STATE_UNSPECIFIED
    ) -> AsyncIterator[pb.Ceremony]:
        """Yield the ceremonies in a state, or all, oldest first. They are unverified; ``review`` verifies one."""
        token = ""
        while True:
            request = pb.ListCeremoniesRequest(
                page=PageRequest(page_size=PAGE, page_token=token), state=state
            )
            answer = await call(self._stub.ListCeremonies, request, timeout=TIMEOUT)
            for ceremony in answer.ceremonies:
                yield ceremony
            if not (token := answer.next_page_token):
                return

    async def review(self, ceremony_id: bytes) -> ReviewedCeremony:
        """Fetch a ceremony and verify everything that a decision depends on, in the log that RM and CM follow.

        If one of them does not answer, ``unconfirmed`` of the result says so. The one-time key of this agent's
        own recovery is erased once it is over. Raises as ``CeremonyReview.review`` and
        ``Witnesses.confirm_where_possible``.
        """
        reviewed = await confirmed(await self.look(ceremony_id), self._witnesses)
        if reviewed.is_over(now=int(time.time())):
            self._keys.recipients.delete(ceremony_id)
        return reviewed

    async def look(self, ceremony_id: bytes) -> ReviewedCeremony:
        """Fetch and verify a ceremony as ``review`` does, but without asking RM and CM, to see its progress."""
        request = pb.GetCeremonyRequest(ceremony_id=ceremony_id)
        answer = await call(self._stub.GetCeremony, request, timeout=TIMEOUT)
        return await self._reviewed(answer.ceremony, ceremony_id)

    async def _reviewed(self, view: pb.Ceremony, ceremony_id: bytes) -> ReviewedCeremony:
        """Verify the ceremony of this id."""
        if view.ceremony_id != ceremony_id:
            raise different_ceremony()
        return await self._following(lambda review: review.review(view))

    async def _following(self, verify: Callable[[CeremonyReview], _T]) -> _T:
        """Verify what the archive shows, under its newest transport key where that was rotated meanwhile."""
        try:
            return verify(self._review)
        except CheckpointSignatureError:
            await follow_transport_keys(self.session.home, self.session.channel)
            self._review = CeremonyReview(self.session.home)
            return verify(self._review)

    async def storage_keys(self) -> list[pb.StorageKey]:
        """Return all storage key generations, newest last, with this agent's own sealed shares."""
        answer = await call(self._stub.ListStorageKeys, pb.ListStorageKeysRequest(), timeout=TIMEOUT)
        return list(answer.storage_keys)

    async def approve(self, ceremony: ReviewedCeremony) -> ReviewedCeremony:
        """Approve what was reviewed: open this agent's shares, and seal them to this very opening.

        All that may be opened and made follows from the type, the keys' receipts and this agent's own pins. Where a
        new storage key is approved, this agent's share of it has to open too. And all of it stands in the log that RM
        and CM follow. Raises WrongShareError, CeremonyMismatchError, CeremonyClosedError, ChangePendingError,
        PrivateLogError, what ``pins`` raises, and what the archive refuses with; where RM or CM are away, nobody
        approves. Raises DecisionNotLoggedError where the archive took the approval and does not prove that it is in
        that log.
        """
        check_complete(ceremony)
        check_current(ceremony, self._review.trust, now=int(time.time()))
        pins = await self.pins()
        pins.check(ceremony)
        check_people(ceremony, pins, self._keys.signer, self._keys.share_key.public_key)
        await self._changes.check_witnesses(pins, self._review)
        pins = await self._see_own_changes_through(pins, ceremony)
        await self._witnesses.confirm(ceremony.entries)
        if ceremony.view.HasField("new_storage_key"):
            self._open_share(ceremony.view.new_storage_key)
        approval = sign_decision(
            ceremony.opening,
            self._keys.signer,
            decision=Decision.DECISION_APPROVE,
            time_us=time.time_ns() // 1000,
        )
        pins.approving(ceremony.request).save(self._keys.folder)
        request = pb.ApproveCeremonyRequest(
            ceremony_id=ceremony.ceremony_id,
            approval=approval,
            shares=[self._release(ceremony, key) for key in ceremony.view.storage_keys],
        )
        answer = await answer_to(
            call(self._stub.ApproveCeremony, request, timeout=TIMEOUT), ceremony.ceremony_id
        )
        reviewed = await self._decided(ceremony, answer, Decision.DECISION_APPROVE)
        if answer.HasField("change"):
            await self._changes.spread(answer.change, self._review)
        return reviewed

    async def _decided(
        self,
        ceremony: ReviewedCeremony,
        answer: pb.ApproveCeremonyResponse | pb.RejectCeremonyResponse,
        decision: Decision.ValueType,
    ) -> ReviewedCeremony:
        """Return what became of a ceremony, once this agent's decision is proven to be in the log that all follow.

        Raises DecisionNotLoggedError. Where RM or CM is away, ``unconfirmed`` says so.
        """
        agent, ceremony_id = self._keys.signer.identity, ceremony.ceremony_id
        try:
            entry = await self._following(
                lambda review: review.own_decision(
                    answer.decision_proof, ceremony.opening, agent=agent, decision=decision
                )
            )
        except KeyarkError as error:
            raise not_logged(ceremony_id, decision, error) from error
        reviewed = await self._reviewed(answer.ceremony, ceremony_id)
        if reviewed.left_out(agent):
            return reviewed
        try:
            heads = [proven.head for proven in (entry, *reviewed.entries)]
            return replace(reviewed, unconfirmed=await self._witnesses.confirm_where_possible(heads))
        except KeyarkError as error:
            raise not_logged(ceremony_id, decision, error) from error

    def _release(self, ceremony: ReviewedCeremony, storage_key: pb.StorageKey) -> pb.ReleasedShare:
        share = self._open_share(storage_key)
        recipient = HybridPublicKey.from_bytes(ceremony.view.share_recipient_key)
        key_id = sha256(storage_key.public_key).digest()
        return pb.ReleasedShare(
            storage_key_id=key_id,
            ciphertext=seal_released_share(share, recipient, ceremony.opening, key_id),
        )

    def _open_share(self, storage_key: pb.StorageKey) -> Share:
        return open_share(token_of(storage_key), self._keys.share_key, str(self._keys.signer.identity))

    async def pins(self) -> ArchivePins:
        """Return who the agents are and which storage keys there are, by this agent's own pins and what followed.

        Changes since then are verified, each with the word of a quorum of those who were pinned until it, told to RM
        and CM, and remembered. Raises PinsMissingError, ArchiveChangeError, and the errors of ``ReceiptVerifier``.
        """
        return await self._changes.follow(self._review)

    async def _see_own_changes_through(self, pins: ArchivePins, ceremony: ReviewedCeremony) -> ArchivePins:
        """Return pins that wait for no other change that this agent approved: what was carried out was followed.

        Raises ChangePendingError where the archive does not prove that one ended: it may hide that it was carried out.
        """
        for digest, ceremony_id in pins.approved.items():
            if digest == ceremony.request.digest:
                continue
            request = pb.GetCeremonyRequest(ceremony_id=ceremony_id)
            view = (await call(self._stub.GetCeremony, request, timeout=TIMEOUT)).ceremony
            closed = self._review.verify_closing(view.closing_proof, ceremony_id, digest)
            await self._witnesses.confirm([closed])
            pins = pins.ended(digest)
            pins.save(self._keys.folder)
        return pins

    async def reject(self, ceremony: ReviewedCeremony, *, reason: str) -> ReviewedCeremony:
        """Reject a reviewed ceremony, with a reason; raises DecisionNotLoggedError as ``approve`` does."""
        rejection = sign_decision(
            ceremony.opening,
            self._keys.signer,
            decision=Decision.DECISION_REJECT,
            time_us=time.time_ns() // 1000,
            reason=reason,
        )
        request = pb.RejectCeremonyRequest(ceremony_id=ceremony.ceremony_id, rejection=rejection)
        answer = await answer_to(
            call(self._stub.RejectCeremony, request, timeout=TIMEOUT), ceremony.ceremony_id
        )
        return await self._decided(ceremony, answer, Decision.DECISION_REJECT)

    async def cancel(self, ceremony_id: bytes) -> ReviewedCeremony:
        """Cancel this agent's own request; its one-time key is erased.

        Raises DecisionNotLoggedError if the archive does not prove that it ended, and as
        ``Witnesses.confirm_where_possible``.
        """
        request = pb.CancelCeremonyRequest(ceremony_id=ceremony_id)
        answer = await call(self._stub.CancelCeremony, request, timeout=TIMEOUT)
        self._keys.recipients.delete(ceremony_id)
        reviewed = await confirmed(await self._reviewed(answer.ceremony, ceremony_id), self._witnesses)
        if reviewed.closed is None:
            raise not_canceled(ceremony_id)
        return reviewed

    async def collect(self, ceremony_id: bytes) -> list[RecoveredKey]:
        """Fetch recovered keys, and prove that each belongs to its certificate, issued by the home's CA.

        They can be fetched again until ``acknowledge``. Raises RecipientKeyMissingError, SealError,
        KeyMismatchError, CertificateChainError, and the archive's refusals.
        """
        ceremony = await self.review(ceremony_id)
        request = pb.GetRecoveredKeysRequest(ceremony_id=ceremony_id)
        answer = await call(self._stub.GetRecoveredKeys, request, timeout=TIMEOUT)
        recipient = self._keys.recipients.load(ceremony_id)
        if [key.key_id for key in answer.keys] != list(ceremony.request.message.key_ids):
            raise InvalidInputError("The archive sent keys that were not requested.")
        digest, chains = ceremony.request.digest, self.session.home.known_chains
        return [
            RecoveredKey.open(key, recipient, digest=digest, owner=owner, chains=chains)
            for key, owner in zip(answer.keys, ceremony.owners, strict=True)
        ]

    async def acknowledge(self, ceremony_id: bytes) -> None:
        """Tell the archive that the keys are safe: the archive erases them, and this client the one-time key."""
        request = pb.AcknowledgeRecoveredKeysRequest(ceremony_id=ceremony_id)
        await call(self._stub.AcknowledgeRecoveredKeys, request, timeout=TIMEOUT)
        self._keys.recipients.delete(ceremony_id)
