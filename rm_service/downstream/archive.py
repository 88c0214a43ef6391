"""The RM's way to the DRM: keys archived in batches, every receipt verified, the log followed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from keyark.custody.envelopes import UnknownTransportKeyError
from keyark.errors import KeyarkError, UnavailableError
from keyark.errors.services import ArchiveAnswerError, CheckpointGapError, StaleCheckpointError
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.coalescing import Coalescer
from keyark.rpc.errors import error_from_status
from keyark.service.checks.evidence import ReceiptChecks
from keyark.statements.enrollment import Statement
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import ArchivalReceipt
from keyark.transparency.transport_keys import TransportKeyRetiredError
from keyark.v1 import archive_pb2, audit_pb2
from keyark.v1.ceremony_pb2 import CeremonyProof
from rm_service.enrollment.steps import VerifiedReceipt
from rm_service.requests import WEIGHT, BatchCalls, EnrollmentRequest

if TYPE_CHECKING:
    from keyark.v1.archive_pb2_grpc import KeyArchiveServiceAsyncStub
    from keyark.v1.audit_pb2_grpc import AuditServiceAsyncStub

BATCH_SECONDS: Final = 30.0
ATTEMPTS: Final = 4
STALE_ATTEMPTS: Final = 3
PAGE_OF_LINKS: Final = 256
_MILLISECOND: Final = 128
"""Bytes that a millisecond of a key's match check weighs: the DRM works a full batch within its deadline."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveItem:
    """A key on its way to the archive."""

    statement: Statement
    request: EnrollmentRequest


class TransportSource(Protocol):
    """Where changes of the DRM's transport key come from, and who remembers them for a while."""

    async def refresh(self) -> None:
        """Follow the transport keys, if that is no longer fresh."""

    def forget(self) -> None:
        """Follow them anew with the next ``refresh``."""

    def refused(self, transport_key_id: str) -> None:
        """Heed that the DRM takes no envelopes to a transport key (hexadecimal)."""


class ArchiveClient:
    """Archives keys; ``links`` remembers how the DRM's tree grew, for the CM to follow."""

    def __init__(
        self,
        *,
        archive: KeyArchiveServiceAsyncStub,
        audit: AuditServiceAsyncStub,
        checks: ReceiptChecks,
        transports: TransportSource,
        max_waiting: int,
    ) -> None:
        self._archive = archive
        self._audit = audit
        self._checks = checks
        self._transports = transports
        self._links: list[audit_pb2.CheckpointLink] = []
        self.batches: Coalescer[ArchiveItem, VerifiedReceipt] = Coalescer(
            self._send, weigh=_weigh, max_waiting=max_waiting, batch_seconds=BATCH_SECONDS
        )
        self.reservations: Coalescer[ArchiveItem, None] = Coalescer(
            self._reserve, weigh=_size, max_waiting=max_waiting, batch_seconds=BATCH_SECONDS
        )

    async def archive(self, statement: Statement, request: EnrollmentRequest) -> VerifiedReceipt:
        """Return the verified archival receipt of one key; it travels with whatever else is waiting."""
        return await self.batches.submit(ArchiveItem(statement, request), caller=str(statement.caller))

    async def reserve_signing_key(self, statement: Statement, request: EnrollmentRequest) -> None:
        """Have a signing key reserved whose enrollment archives nothing; raises KeyRoleConflictError."""
        await self.reservations.submit(ArchiveItem(statement, request), caller=str(statement.caller))

    async def _reserve(self, items: Sequence[ArchiveItem]) -> Sequence[KeyarkError | None]:
        gathered = BatchCalls.gather(item.request.call for item in items)
        message = archive_pb2.ReserveSigningKeysRequest(
            items=[
                archive_pb2.SigningKeyItem(
                    statement=item.request.statement,
                    signature=item.request.signature,
                    call=place,
                    approval=item.request.approval,
                )
                for item, place in zip(items, gathered.places, strict=True)
            ],
            calls=gathered.calls,
        )
        response = await call(self._archive.ReserveSigningKeys, message, timeout=BATCH_SECONDS)
        if len(response.outcomes) != len(items):
            raise UnavailableError("The DRM sent a different number of outcomes than requests; try again.")
        return [error_from_status(status) if status.code else None for status in response.outcomes]

    async def _send(self, items: Sequence[ArchiveItem]) -> Sequence[VerifiedReceipt | KeyarkError]:
        """Archive a batch; receipts whose checkpoint a newer one overtook on the way are asked for once more.

        Two batches may be outstanding, and whichever answer comes first is accepted first. A key that is archived
        gets its first receipt again, under the newest checkpoint.
        """
        results = list(await self._archive_batch(items))
        for _ in range(STALE_ATTEMPTS):
            stale = [position for position, result in enumerate(results) if _is_overtaken(result)]
            if not stale:
                break
            again = await self._archive_batch([items[position] for position in stale])
            for position, result in zip(stale, again, strict=True):
                results[position] = result
        return results

    async def _archive_batch(self, items: Sequence[ArchiveItem]) -> Sequence[VerifiedReceipt | KeyarkError]:
        gathered = BatchCalls.gather(item.request.call for item in items)
        message = archive_pb2.ArchiveKeysRequest(
            items=[
                archive_pb2.ArchiveItem(
                    statement=item.request.statement,
                    signature=item.request.signature,
                    wrapped_private_key=item.request.wrapped_private_key,
                    call=place,
                    approval=item.request.approval,
                )
                for item, place in zip(items, gathered.places, strict=True)
            ],
            known_tree_size=self._checks.heads.size,
            calls=gathered.calls,
        )
        response = await call(self._archive.ArchiveKeys, message, timeout=BATCH_SECONDS)
        outcomes = [_outcome(outcome) for outcome in response.outcomes]
        if len(outcomes) != len(items):
            raise UnavailableError("The DRM sent a different number of outcomes than requests; try again.")
        receipts = [b"" if isinstance(outcome, KeyarkError) else outcome for outcome in outcomes]
        link = [response.link] if response.HasField("link") else []
        verified = await self._verify(receipts, link)
        await self._follow_changes(response.newest_change)
        return [self._check(*triple) for triple in zip(items, outcomes, verified, strict=True)]

    async def _verify(
        self, receipts: Sequence[bytes], links: Sequence[audit_pb2.CheckpointLink]
    ) -> Sequence[ArchivalReceipt | KeyarkError | None]:
        """Verify a batch; where another batch was accepted meanwhile, fetch the proof that is missing.

        A signature of a key that is not known here is that of a newer one, so the transport keys are followed anew.
        """
        renewed = False
        for _ in range(ATTEMPTS):
            await self._transports.refresh()
            try:
                evidence = ArchiveEvidence(brought_by=self._archive_id, links=links)
                verified = await self._checks.verify_receipts(receipts, evidence)
            except CheckpointGapError:
                if not links:
                    break
                links = [await self.fetch_link(self._checks.heads.size, links[-1].second_size)]
                continue
            if not renewed and any(isinstance(item, CheckpointSignatureError) for item in verified):
                self._transports.forget()
                renewed = True
                continue
            self._remember(links)
            return verified
        raise UnavailableError("The DRM's log could not be followed; try again.")

    async def _follow_changes(self, newest: bytes) -> None:
        """Where the DRM names another change as the newest, ask for the quorum's word for those that are missing."""
        if newest == self.newest_change:
            return
        try:
            await self.trust_changes(self.newest_change)
        except KeyarkError as error:
            logger.warning(
                "a change of storage keys or agents from the DRM was refused: %s (%s)",
                error.message,
                error.reason,
            )

    @property
    def _archive_id(self) -> str:
        return f"spiffe://{self._checks.heads.origin}"

    @property
    def newest_change(self) -> bytes:
        """The id of the newest change of storage keys or agents that is believed here; empty before the first."""
        return self._checks.storage_keys.newest_change

    async def trust_changes(self, known: bytes) -> Sequence[CeremonyProof]:
        """Return the changes of storage keys and agents after the one of id ``known``, believed here too.

        Their proofs are under a head that is accepted here, so that ``links_from`` leads the CM to it. Raises what is
        not proven.
        """
        request = archive_pb2.ListTrustChangesRequest(
            newest_change=known, known_tree_size=self._checks.heads.size
        )
        response = await call(self._archive.ListTrustChanges, request, timeout=BATCH_SECONDS)
        links = [response.link] if response.HasField("link") else []
        await self._checks.accept_changes(
            ArchiveEvidence(brought_by=self._archive_id, links=links, trust_changes=response.changes)
        )
        self._remember(links)
        return response.changes

    def _remember(self, links: Sequence[audit_pb2.CheckpointLink]) -> None:
        for link in links:
            if link.first_size < link.second_size:
                self._links.append(link)
        del self._links[:-PAGE_OF_LINKS]

    def _check(
        self, item: ArchiveItem, outcome: bytes | KeyarkError, receipt: ArchivalReceipt | KeyarkError | None
    ) -> VerifiedReceipt | KeyarkError:
        if isinstance(outcome, UnknownTransportKeyError):
            self._transports.refused(outcome.metadata.get("transport_key_id", ""))
        if isinstance(outcome, KeyarkError):
            return outcome
        if receipt is None:
            return ArchiveAnswerError("The DRM sent no receipt; its operator should examine both logs.")
        try:
            if isinstance(receipt, KeyarkError):
                raise receipt
            self._checks.check(receipt, item.statement)
        except KeyarkError as error:
            return ArchiveAnswerError(
                f"The DRM's receipt was refused ({error.reason}), so nothing was issued. The operator should "
                "examine the logs of RM and DRM.",
                metadata={"receipt": error.reason},
            )
        return VerifiedReceipt(file=outcome, leaf_hash=leaf_hash(receipt.leaf))

    async def links_from(self, tree_size: int) -> list[audit_pb2.CheckpointLink]:
        """Return the steps from a tree that the CM accepted to the newest one accepted here."""
        newest = self._checks.heads.size
        if tree_size >= newest:
            return []
        known = [link for link in self._links if link.first_size >= tree_size]
        if known and known[0].first_size == tree_size and known[-1].second_size == newest:
            return known
        return [await self.fetch_link(tree_size, newest)]

    async def fetch_link(self, first_size: int, second_size: int) -> audit_pb2.CheckpointLink:
        """Ask the DRM to prove that one tree follows from another."""
        request = audit_pb2.GetConsistencyProofRequest(first_size=first_size, second_size=second_size)
        response = await call(self._audit.GetConsistencyProof, request, timeout=BATCH_SECONDS)
        return response.link


def _is_overtaken(result: VerifiedReceipt | KeyarkError) -> bool:
    return isinstance(result, ArchiveAnswerError) and result.metadata.get("receipt") in (
        StaleCheckpointError.reason,
        TransportKeyRetiredError.reason,
    )


def _size(item: ArchiveItem) -> int:
    request = item.request
    return len(request.statement) + len(request.wrapped_private_key) + len(request.signature) + WEIGHT


def _weigh(item: ArchiveItem) -> int:
    return _size(item) + item.statement.archived_key_type.facts.match_milliseconds * _MILLISECOND


def _outcome(outcome: archive_pb2.ArchiveOutcome) -> bytes | KeyarkError:
    return error_from_status(outcome.error) if outcome.HasField("error") else outcome.receipt
