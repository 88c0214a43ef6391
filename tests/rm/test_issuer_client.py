"""The RM brings the CM the links that it lacks, from the tree that the CM accepted, whatever the RM remembers of it."""

from __future__ import annotations

from typing import Any

import pytest

from keyark.errors import KeyarkError, UnavailableError
from keyark.errors.services import CheckpointGapError
from keyark.rpc.errors import error_to_status
from keyark.store import MemoryStore, Store
from keyark.transparency import heads
from keyark.transparency.checkpoint import VerifiedHead, parse_checkpoint
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.log import Log
from keyark.v1 import archive_pb2, certificates_pb2
from keyark.v1.audit_pb2 import (
    CheckpointLink,
    CosignCheckpointRequest,
    CosignCheckpointResponse,
    TransportKeyChange,
)
from keyark.v1.common_pb2 import CertificatePair, TransportCertificate
from rm_service.downstream.issuer import GAP_ATTEMPTS, EvidenceSource, IssueItem, IssuerClient
from rm_service.requests import EnrollmentRequest
from tests.support.stories.transparency import ORIGIN, append, entry, opened_log

REQUEST = EnrollmentRequest(statement=b"statement", signature=b"signature", wrapped_private_key=b"")


class Cm:
    """A CM's end: it follows the DRM's log as the real one does, durably with what it issues."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore(tables=heads.TABLES)
        self.calls = 0
        self.can_sign = True
        self.transport_key_id = b"first"
        self.restart()

    def restart(self) -> None:
        self.heads = AcceptedHeads.load(self.store, origin=ORIGIN)

    async def CosignCheckpoint(self, request: Any, timeout: float = 0) -> Any:
        return CosignCheckpointResponse(followed_size=self.heads.size, transport_key_id=self.transport_key_id)

    async def IssueCertificatePairs(self, request: Any, timeout: float) -> Any:
        self.calls += 1
        if request.transport_key_changes:
            self.transport_key_id = b"second"
        self.heads.accept(request.links, [])
        outcomes = [self._outcome(item.receipt) for item in request.items]
        if any(outcome.HasField("pair") for outcome in outcomes):
            await self.store.update(self.heads.record)
        return certificates_pb2.IssueCertificatePairsResponse(
            outcomes=outcomes, drm_tree_size=self.heads.size, transport_key_id=self.transport_key_id
        )

    def _outcome(self, note: bytes) -> certificates_pb2.PairOutcome:
        try:
            self.heads.accept([], [VerifiedHead(parse_checkpoint(note), note)])
            if not self.can_sign:
                raise UnavailableError("The CA key is missing.")
        except KeyarkError as error:
            return certificates_pb2.PairOutcome(error=error_to_status(error))
        return certificates_pb2.PairOutcome(pair=CertificatePair(signing_certificate=b"signed"))


class Rm:
    """The RM's way to a CM, with the DRM's real log behind it."""

    def __init__(self, cm: Any, log: Log, store: Store) -> None:
        self.log, self.store = log, store
        self.newest = 0
        self.transport_key_id = b"first"
        self.known_asked: list[bytes] = []
        self.cm = cm
        self.restart()

    def restart(self) -> None:
        cm = self.cm
        self.client = IssuerClient(
            issuer=cm,
            cosign=cm.CosignCheckpoint,
            evidence=EvidenceSource(
                links_from=self.links_from,
                transport_certificate=self._transport_certificate,
                transport_keys=self._transport_keys,
                trust_changes=self._trust_changes,
                newest_change=lambda: b"",
                transport_key_id=lambda: self.transport_key_id,
            ),
            max_waiting=16,
        )

    async def archive(self) -> IssueItem:
        """Another key in the archive, and the head that its receipt is under."""
        index = (await append(self.log, self.store, entry(self.log.size)))[0]
        head = await self.log.checkpoint(covering=index)
        self.newest = parse_checkpoint(head.note).size
        return IssueItem(REQUEST, head.note)

    async def issue(self, item: IssueItem) -> CertificatePair:
        return await self.client.batches.submit(item, caller="alice")

    async def links_from(self, size: int) -> list[CheckpointLink]:
        return [self.log.link_sizes(size, self.newest)] if size < self.newest else []

    async def _transport_certificate(self) -> TransportCertificate:
        return TransportCertificate()

    async def _transport_keys(
        self, *, known: bytes, tree_size: int
    ) -> archive_pb2.ListTransportKeyChangesResponse:
        self.known_asked.append(known)
        return archive_pb2.ListTransportKeyChangesResponse(changes=[TransportKeyChange()])

    async def _trust_changes(self, _: bytes) -> list[Any]:
        return []


async def test_a_cm_that_restarted_without_committing_is_followed_at_the_next_try_alone() -> None:
    cm = Cm()
    rm = Rm(cm, *await opened_log())
    await rm.issue(await rm.archive())
    cm.can_sign = False
    item = await rm.archive()
    with pytest.raises(UnavailableError, match="CA key"):
        await rm.issue(item)  # the CM told of the newest tree, and committed nothing
    cm.can_sign = True
    cm.restart()
    assert (await rm.issue(item)).signing_certificate == b"signed"
    assert cm.heads.size == rm.newest


async def test_a_cm_that_lost_every_tree_is_followed_too() -> None:
    cm = Cm()
    rm = Rm(cm, *await opened_log())
    for _ in range(3):
        await rm.issue(await rm.archive())
    cm.store = MemoryStore(tables=heads.TABLES)
    cm.restart()
    assert (await rm.issue(await rm.archive())).signing_certificate == b"signed"


async def test_a_batch_brings_the_cm_all_that_it_lacks_at_the_first_try() -> None:
    """The CM logs what it refuses: so an honest RM gives it nothing to refuse."""
    cm = Cm()
    rm = Rm(cm, *await opened_log())
    await rm.issue(await rm.archive())
    rm.transport_key_id = b"second"  # the DRM rotated it
    rm.restart()
    await rm.issue(await rm.archive())
    assert rm.known_asked == [b"first"]
    item = await rm.archive()
    cm.heads.accept(
        await rm.links_from(cm.heads.size), [VerifiedHead(parse_checkpoint(item.receipt), item.receipt)]
    )
    await rm.client.cosign_at_cm(CosignCheckpointRequest())  # a client had RM and CM cosign a newer head
    await rm.issue(await rm.archive())
    assert (cm.calls, rm.known_asked) == (3, [b"first"])


class Liar:
    """A CM that always says that links are missing, and never from where."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.calls, self.error = 0, CheckpointGapError("more", metadata=metadata)

    async def CosignCheckpoint(self, request: Any, timeout: float = 0) -> Any:
        return CosignCheckpointResponse(followed_size=1 << 61)

    async def IssueCertificatePairs(self, request: Any, timeout: float) -> Any:
        self.calls += 1
        outcomes = [certificates_pb2.PairOutcome(error=error_to_status(self.error)) for _ in request.items]
        return certificates_pb2.IssueCertificatePairsResponse(outcomes=outcomes, drm_tree_size=1 << 60)


class WholeBatchLiar(Liar):
    """It refuses the whole batch."""

    async def IssueCertificatePairs(self, request: Any, timeout: float) -> Any:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("told", [{}, {"tree_size": "many"}, {"tree_size": "9" * 5000}])
@pytest.mark.parametrize("kind", [Liar, WholeBatchLiar])
async def test_a_cm_that_never_has_enough_is_asked_a_few_times_and_no_more(
    kind: type[Liar], told: dict[str, str]
) -> None:
    cm = kind(told)
    rm = Rm(cm, *await opened_log())
    with pytest.raises(UnavailableError, match="could not follow"):
        await rm.issue(await rm.archive())
    assert cm.calls <= GAP_ATTEMPTS + 1
