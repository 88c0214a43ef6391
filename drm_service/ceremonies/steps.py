"""Key ceremonies: asked for, opened in the log, decided by agents, carried out once a quorum approved.

    request -> approve | reject | cancel | expire -> carry out

What a ceremony does is its action's business. Shares lie in memory, sealed to a one-time key that lies there too; a
restart forgets both, opens the ceremony anew, and agents are asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from drm_service.ceremonies.journal import CeremonyJournal, Decided
from drm_service.ceremonies.quorum import (
    CeremonyQuorum,
    earlier_decision_index,
    is_requester_revoked,
    present_agents,
    revoked_approvers,
)
from drm_service.ceremonies.records import (
    APPROVED,
    ENDABLE,
    RECOVER,
    REJECTED,
    agents_who_decided,
    ceremonies_after,
    check_open,
    closed,
    decision_indices,
    decisions_of,
    find_ceremony,
    open_ceremonies,
    opening_of,
    read_ceremony,
    request_of,
    same_request,
)
from drm_service.ceremonies.room import MAX_ALL, AgentWork, check_room
from drm_service.ceremonies.work import (
    ApprovedCeremony,
    CeremonyAction,
    CeremonyWorkers,
    LiveCeremony,
    ReleasedShares,
    StartWorker,
    all_of,
)
from keyark.clock import Clock
from keyark.custody.shares import QuorumRule
from keyark.custody.storage import HybridPrivateKey
from keyark.errors import InvalidInputError, KeyarkError, PermissionDeniedError
from keyark.errors.recovery import (
    CeremonyCanceledError,
    CeremonyClosedError,
    CeremonyExpiredError,
    CeremonyMovedError,
    CeremonyRejectedError,
    RequesterLeftError,
)
from keyark.identity.revoked import IdentityRevokedError
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord, CeremonyTask, CheckSharesTask
from keyark.statements.ceremonies import (
    AgentDecision,
    AgentTrust,
    check_reason,
    verify_decision,
    verify_request,
)
from keyark.store import Store
from keyark.v1.ceremony_pb2 import CeremonyType, Decision, SignedStatement
from keyark.v1.recovery_pb2 import CeremonyState

WAIT_SECONDS: Final = 15.0
APPROVE: Final = Decision.DECISION_APPROVE
REJECT: Final = Decision.DECISION_REJECT


@dataclass(frozen=True, kw_only=True)
class CeremonySettings:
    """How long agents have to decide, in seconds, and which quorums and approvals are taken."""

    expiry_seconds: int
    quorum_rule: QuorumRule


@dataclass(kw_only=True)
class Ceremonies:
    """The ceremonies of a DRM; open it with ``reopen_all`` before it is used."""

    trust: AgentTrust
    settings: CeremonySettings
    store: Store
    journal: CeremonyJournal
    clock: Clock
    start_worker: StartWorker
    work: AgentWork
    actions: Mapping[CeremonyType.ValueType, CeremonyAction] = field(default_factory=dict)
    _live: dict[bytes, LiveCeremony] = field(default_factory=dict, repr=False)

    async def request(self, caller: SpiffeId, signed: SignedStatement) -> CeremonyRecord:
        """Open what an agent asks for; the same request again returns it as it stands (P9).

        Raises what ``verify_request``, ``check_room`` and the action's ``prepare`` do, and AgentQuotaError.
        """
        self.work.ask(caller)
        request = verify_request(signed, self.trust, at=self._now())
        check_reason(request.message.reason)
        if request.requester != caller:
            raise PermissionDeniedError(f"The request is {request.requester}'s; ask in your own name.")
        known = self.store.read(lambda txn: read_ceremony(txn, request.ceremony_id))
        if known is not None:
            return same_request(known, request)
        if request.type != RECOVER:
            self.work.ask_about_keys(caller)
        has_room = partial(check_room, request=request)
        self.store.read(has_room)
        now = self.clock.now_us()
        record = CeremonyRecord(
            request=signed.SerializeToString(deterministic=True),
            opened_time_us=now,
            expires_time_us=now + self.settings.expiry_seconds * 1_000_000,
        )
        await self.actions[request.type].prepare(request, record)
        key = HybridPrivateKey.generate()
        opened = await self.journal.open_first(request, record, key.public_key, has_room)
        if opened is not record:
            return same_request(opened, request)
        self._live[request.ceremony_id] = LiveCeremony(share_recipient_key=key)
        return opened

    async def approve(
        self, caller: SpiffeId, ceremony_id: bytes, signed: SignedStatement, shares: ReleasedShares
    ) -> Decided:
        """Take an agent's approval with its shares; with the last one that is needed, carry the ceremony out.

        Raises WrongShareError, which names the agent, NoShareError, OwnRequestError, AlreadyDecidedError,
        CeremonyClosedError, AgentQuotaError and what ``verify_decision`` does; then nothing counts.
        """
        task = asyncio.create_task(self._approve(caller, ceremony_id, signed, shares))
        live, log_index = await asyncio.shield(task)  # a caller that goes away leaves no half of an approval
        if live.carrying_out is not None:
            done, _ = await asyncio.wait([live.carrying_out], timeout=WAIT_SECONDS)
            for finished in done:
                if not finished.cancelled():  # it was canceled or the service stops; the record says so
                    finished.result()
        return Decided(record=self._find(ceremony_id), log_index=log_index)

    async def _approve(
        self, caller: SpiffeId, ceremony_id: bytes, signed: SignedStatement, shares: ReleasedShares
    ) -> tuple[LiveCeremony, int]:
        live = self._living(ceremony_id)
        async with self.work.approving(caller), live.lock:
            record = await self._deciding(ceremony_id)
            decision = self._verified(caller, record, signed, APPROVE)
            quorum = self._quorum(record)
            if (log_index := earlier_decision_index(record, decision)) is None:
                quorum.check_may_decide(caller, APPROVE)
                await self._check_shares(live, record, quorum, {str(caller): shares})
                log_index = (await self.journal.add_decision(record, signed, APPROVED)).log_index
                live.shares[str(caller)] = list(shares)
            self._begin(live, record, quorum)
        return live, log_index

    def _begin(self, live: LiveCeremony, record: CeremonyRecord, quorum: CeremonyQuorum) -> None:
        """Carry a ceremony out, unless that is under way, where a quorum approved whose identities are in force."""
        for revoked in revoked_approvers(record, self.trust):
            live.shares.pop(revoked, None)
        if not live.is_running and quorum.is_reached(list(live.shares)):
            ceremony_id = request_of(record).ceremony_id
            live.carrying_out = asyncio.create_task(self._carry_out(live, ceremony_id))

    async def _check_shares(
        self,
        live: LiveCeremony,
        record: CeremonyRecord,
        quorum: CeremonyQuorum,
        shares: Mapping[str, ReleasedShares],
    ) -> None:
        """Have a disposable worker tell whether shares are those that were given out, before they count."""
        wanted = sorted(record.storage_key_ids)
        if any(sorted(share.storage_key_id for share in released) != wanted for released in shares.values()):
            raise InvalidInputError(
                "An approval must bring one share for each storage key of the ceremony; show the ceremony, "
                "and approve again.",
                field="shares",
            )
        if wanted:
            async with self._workers(live, record, quorum).open(shares) as run:
                all_of(await run([CeremonyTask(check_shares=CheckSharesTask())]))

    async def reject(self, caller: SpiffeId, ceremony_id: bytes, signed: SignedStatement) -> Decided:
        """Take an agent's rejection; the ceremony ends when no quorum is left. Raises as ``approve``."""
        live = self._living(ceremony_id)
        async with live.lock:
            record = await self._deciding(ceremony_id)
            decision = self._verified(caller, record, signed, REJECT)
            check_reason(decision.message.reason)
            if (log_index := earlier_decision_index(record, decision)) is None:
                quorum = self._quorum(record)
                quorum.check_may_decide(caller, REJECT)
                decided = await self.journal.add_decision(record, signed, REJECTED)
                log_index = decided.log_index
                if quorum.has_no_quorum_left(decided.record):
                    error = CeremonyRejectedError(
                        f"Too few agents are left for a quorum; {caller} rejected last."
                    )
                    await self._close(decided.record, CeremonyState.CEREMONY_STATE_REJECTED, error)
        return Decided(record=self._find(ceremony_id), log_index=log_index)

    async def cancel(self, caller: SpiffeId, ceremony_id: bytes) -> CeremonyRecord:
        """End a ceremony for its requester; what was recovered and not fetched is erased."""
        record = self._find(ceremony_id)
        if request_of(record).requester != caller:
            raise PermissionDeniedError(
                "Only the agent who asked for a ceremony may cancel it; reject it instead."
            )
        if record.state == CeremonyState.CEREMONY_STATE_CANCELED:
            return record
        error = CeremonyCanceledError(f"{caller} canceled the ceremony; ask for a new one.")
        await self._close(record, CeremonyState.CEREMONY_STATE_CANCELED, error)
        return self._find(ceremony_id)

    async def expire(self) -> None:
        """End every open ceremony whose time ran out, and go on with what a quorum approved and failed for now."""
        for record in self._open():
            if record.expires_time_us <= self.clock.now_us():
                await self._expire(record)
            elif (live := self._live.get(request_of(record).ceremony_id)) and live.has_failed:
                self._begin(live, record, self._quorum(record))

    async def _expire(self, record: CeremonyRecord) -> None:
        if self.is_running(request_of(record).ceremony_id):
            return  # a quorum approved in time
        error = CeremonyExpiredError("No quorum approved in time; ask for it again.")
        await self._close(record, CeremonyState.CEREMONY_STATE_EXPIRED, error)

    async def reopen_all(self, why: str, *, only: Sequence[CeremonyType.ValueType] = ()) -> None:
        """Open every open ceremony anew: what agents gave for it is forgotten, and they are asked again.

        What a quorum approved about storage keys and is being carried out goes on.
        """
        await self.expire()
        for record in self._open():
            request = request_of(record)
            if request.type != RECOVER and self.is_running(request.ceremony_id):
                continue
            if not only or request.type in only:
                await self._reopen(record, why)

    async def leave_former_agents(self) -> None:
        """End what former agents asked for, and erase what was recovered for them; a present agent asks anew."""
        present, after = self.store.read(present_agents), b""
        while rows := await self.store.view(partial(ceremonies_after, after=after)):
            after = rows[-1][0]
            for _, record in rows:
                requester = request_of(record).requester
                if record.state in ENDABLE and str(requester) not in present:
                    error = RequesterLeftError(
                        f"{requester} is no longer a recovery agent; a current agent has to ask again."
                    )
                    with suppress(CeremonyClosedError):  # it ended meanwhile, for its time ran out
                        await self._close(record, CeremonyState.CEREMONY_STATE_FAILED, error)

    async def agents_changed(self) -> None:
        """Ask the present agents anew about all that is open, and end what former agents asked for."""
        await self.leave_former_agents()
        await self.reopen_all("the agents changed")

    async def _reopen(self, record: CeremonyRecord, why: str) -> None:
        """Open a ceremony under a new one-time key; rejections stay, approvals have to be repeated."""
        request, approved = request_of(record), agents_who_decided(APPROVE, record)
        self._live.pop(request.ceremony_id, None)
        record.approvals_to_repeat[:] = sorted({*record.approvals_to_repeat, *approved})
        made = zip(record.decisions, decision_indices(record), decisions_of(record), strict=True)
        kept = [(raw, index) for raw, index, message in made if message.decision != APPROVE]
        record.decisions[:] = [raw for raw, _ in kept]
        record.decision_indices[:] = [index for _, index in kept]
        key = HybridPrivateKey.generate()
        try:
            await self.actions[request.type].prepare(request, record)
            await self.journal.reopen(request, record, key.public_key, why=why)
        except KeyarkError as error:
            if not error.kind.is_refusal:
                raise
            await self._close(record, CeremonyState.CEREMONY_STATE_FAILED, error)
        else:
            self._live[request.ceremony_id] = LiveCeremony(share_recipient_key=key)

    async def _carry_out(self, live: LiveCeremony, ceremony_id: bytes) -> None:
        """Do what a quorum approved; a failure for good ends the ceremony, another leaves it open for a retry."""
        record = self._find(ceremony_id)
        request, workers = request_of(record), self._workers(live, record, self._quorum(record))
        approved = ApprovedCeremony(
            request=request, record=record, open_worker=lambda: workers.open(live.shares)
        )
        try:
            outcome = await self.actions[request.type].carry_out(approved)
            await self.journal.finish(record, outcome)
        except CeremonyMovedError as error:
            if self._live.get(ceremony_id) is live:
                await self._reopen(self._find(ceremony_id), error.message)
            return
        except KeyarkError as error:
            if not error.kind.is_refusal:
                raise
            await self._close(record, CeremonyState.CEREMONY_STATE_FAILED, error)
            return
        self._live.pop(ceremony_id, None)
        await outcome.afterwards()

    async def _close(
        self, record: CeremonyRecord, state: CeremonyState.ValueType, error: KeyarkError
    ) -> None:
        """End a ceremony without what it was asked for, and forget what agents gave for it."""
        request = request_of(record)
        await self.journal.close(request, state, error)
        live = self._live.pop(request.ceremony_id, None)
        running = live.carrying_out if live is not None else None
        if running is not None and running is not asyncio.current_task():
            running.cancel()

    async def close(self) -> None:
        """Stop what is being carried out: it is done whole, or not at all, or goes on where it stopped."""
        running = [live.carrying_out for live in self._live.values() if live.carrying_out is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._live.clear()

    def is_running(self, ceremony_id: bytes) -> bool:
        """Whether a ceremony is being carried out at this moment."""
        live = self._live.get(ceremony_id)
        return live is not None and live.is_running

    def _find(self, ceremony_id: bytes) -> CeremonyRecord:
        return self.store.read(lambda txn: find_ceremony(txn, ceremony_id))

    def _open(self) -> list[CeremonyRecord]:
        return self.store.read(lambda txn: open_ceremonies(txn, limit=MAX_ALL))

    def _living(self, ceremony_id: bytes) -> LiveCeremony:
        record = self._find(ceremony_id)
        live = self._live.get(ceremony_id)
        if live is None:
            raise closed(record)
        return live

    async def _deciding(self, ceremony_id: bytes) -> CeremonyRecord:
        """Return a record on which agents decide now; ends it where its time ran out or its requester was revoked."""
        record = self._find(ceremony_id)
        check_open(record)
        if is_requester_revoked(record, self.trust):
            error = IdentityRevokedError(
                "The requester's identity was revoked after the request; a current agent has to ask again."
            )
            await self._close(record, CeremonyState.CEREMONY_STATE_FAILED, error)
            record = self._find(ceremony_id)
            check_open(record)
        if record.expires_time_us <= self.clock.now_us():
            await self._expire(record)
            record = self._find(ceremony_id)
            check_open(record)
        return record

    def _quorum(self, record: CeremonyRecord) -> CeremonyQuorum:
        return self.store.read(lambda txn: CeremonyQuorum.of(txn, record, self.settings.quorum_rule))

    def _workers(self, live: LiveCeremony, record: CeremonyRecord, quorum: CeremonyQuorum) -> CeremonyWorkers:
        return CeremonyWorkers(
            start_worker=self.start_worker,
            share_recipient_key=live.share_recipient_key,
            digest=request_of(record).digest,
            opening_leaf=record.opening_leaf,
            tokens=quorum.tokens,
        )

    def _verified(
        self, caller: SpiffeId, record: CeremonyRecord, signed: SignedStatement, wanted: Decision.ValueType
    ) -> AgentDecision:
        decision = verify_decision(signed, opening_of(record), self.trust, at=self._now())
        if decision.agent != caller:
            raise PermissionDeniedError(f"The decision is {decision.agent}'s; decide in your own name.")
        if decision.message.decision != wanted:
            raise InvalidInputError(
                "The signed decision and the call differ (one approves, the other rejects); sign what the "
                "call says.",
                field="decision",
            )
        return decision

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000
