"""How agents and storage keys changed: followed from the DRM, told to RM and CM, and held against what these believe.

The DRM could leave changes out, and lie in the openings that follow. But RM and CM hear of each change from whoever
followed it, and tell which one is the newest that they believe. So a change that one agent saw is hidden from nobody::

    changes = ArchiveChanges(archive=drm, witnesses=witnesses, folder=folder)
    pins = await changes.follow(review)
    await changes.check_witnesses(pins, review)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from keyark.client.access.sessions import Session
from keyark.client.recovery.archive_pins import ArchiveChangeError, ArchivePins, PinsBehindError
from keyark.client.recovery.review import CeremonyReview
from keyark.client.trust.witnesses import Witnesses
from keyark.errors import KeyarkError, Kind
from keyark.rpc.calling.channels import call
from keyark.transparency.events import parse_leaf
from keyark.transparency.opening_facts import change_id, facts_digest, parse_facts
from keyark.v1.ceremony_pb2 import CeremonyProof
from keyark.v1.recovery_pb2 import ArchiveChange, ListArchiveChangesRequest
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub

TIMEOUT: Final = 60.0
MAX_PAGES: Final = 100
MAX_AT_ONCE: Final = 64
"""Changes that a witness takes in one call."""


@dataclass(frozen=True, kw_only=True)
class ArchiveChanges:
    """The changes that the DRM shows one agent, whose pins are in ``folder``."""

    archive: Session
    witnesses: Witnesses
    folder: Path

    async def follow(self, review: CeremonyReview) -> ArchivePins:
        """Return the pins after all changes that the DRM shows, each verified, told to RM and CM, and remembered.

        Raises PinsMissingError, ArchiveChangeError, PrivateLogError, and the errors of ``ReceiptVerifier``.
        """
        pins = ArchivePins.load(self.folder)
        for _ in range(MAX_PAGES):
            if not (changes := await self._after(pins.newest_change)):
                return pins
            pins = await self._take(pins, changes, review)
        raise ArchiveChangeError(
            "The archive keeps showing further changes of agents and storage keys; examine its log."
        )

    async def spread(self, change: ArchiveChange, review: CeremonyReview) -> None:
        """Follow the change that this agent's approval carried out, which came with the answer to it.

        RM and CM hear of it here: they believe a change while those who approved it are in force, and an agent whom it
        removes is told nothing later. Where one of them does not answer, the next agent or enrollment tells it. Raises
        as ``follow``.
        """
        try:
            await self._take(ArchivePins.load(self.folder), [change], review)
        except KeyarkError as error:
            if not (error.kind.is_transient or error.kind is Kind.DENIED):
                raise

    async def _take(
        self, pins: ArchivePins, changes: Sequence[ArchiveChange], review: CeremonyReview
    ) -> ArchivePins:
        entries = [review.verifier.verify_entry(change.opening_proof) for change in changes]
        for change, opened in zip(changes, entries, strict=True):
            pins = pins.follow(change.change, opened, trust=review.trust, now=int(time.time()))
        await self.check_witnesses(pins, review, followed=changes)
        await self.witnesses.confirm(entries)
        pins.save(self.folder)
        return pins

    async def check_witnesses(
        self, pins: ArchivePins, review: CeremonyReview, *, followed: Sequence[ArchiveChange] = ()
    ) -> None:
        """Bring RM and CM up to the newest change that is pinned, where they believe an older one.

        ``followed`` are changes at hand that lead to it; the DRM is asked for others. Where one of the two refuses a
        change, it stays behind, and these pins are right all the same. Raises PinsBehindError where one of them
        believes a change that does not lead to the pinned one: then the DRM hides a change from this agent. Raises the
        error of the call where one of them is away.
        """
        for follower in self.witnesses.followers:
            believed = await self.witnesses.believed_change(follower)
            if believed == pins.newest_change:
                continue
            missing = _after_change(followed, believed) or await self._leading(believed, pins.newest_change)
            if not missing and believed not in (b"", *pins.changes):
                raise PinsBehindError(
                    f"The {follower.role.upper()} has accepted a change of agents or storage keys that this "
                    "agent has not pinned and that the archive does not show. Try again. If the error "
                    "stays, the archive hides a change: approve nothing, and compare `keyark agents pins` "
                    "with the other agents."
                )
            await self._show(follower, missing, review)

    async def _show(
        self, follower: Session, missing: Sequence[ArchiveChange], review: CeremonyReview
    ) -> None:
        heads = [review.verifier.verify_entry(change.opening_proof).head for change in missing]
        together = groupby(zip(missing, heads, strict=True), key=lambda pair: pair[1].checkpoint)
        for _, group in together:
            shown = list(group)[:MAX_AT_ONCE]
            try:
                await self.witnesses.show_changes(
                    follower, [_proof(change) for change, _ in shown], shown[0][1]
                )
            except KeyarkError as error:
                if error.kind.leaves_outcome_unknown:
                    raise
                return

    async def _leading(self, first: bytes, last: bytes) -> list[ArchiveChange]:
        """Return the changes that lead from one (id) to another; none where the DRM does not show them.

        Each binds the one before it by its hash, so nobody can make up such a way to a change that is pinned.
        """
        found: list[ArchiveChange] = []
        newest = first
        for _ in range(MAX_PAGES):
            try:
                page = await self._after(newest)
            except KeyarkError as error:
                if error.kind.leaves_outcome_unknown:
                    raise
                return []
            for change in page:
                if _change_before(change.change) != newest:
                    return []
                found.append(change)
                newest = change_id(change.change.opening_leaf)
                if newest == last:
                    return found
            if not page:
                return []
        return []

    async def _after(self, newest: bytes) -> Sequence[ArchiveChange]:
        stub = KeyRecoveryServiceStub(self.archive.channel)
        request = ListArchiveChangesRequest(newest_change=newest)
        return (await call(stub.ListArchiveChanges, request, timeout=TIMEOUT)).changes


def _proof(change: ArchiveChange) -> CeremonyProof:
    proof = CeremonyProof()
    proof.CopyFrom(change.change)
    proof.opening_proof = change.opening_proof
    return proof


def _after_change(changes: Sequence[ArchiveChange], newest: bytes) -> Sequence[ArchiveChange]:
    """Return those of a chain of changes that come after the one of this id; none where it is not among them."""
    for place, change in enumerate(changes):
        if _change_before(change.change) == newest:
            return changes[place:]
    return ()


def _change_before(change: CeremonyProof) -> bytes | None:
    """Return the id of the change that a change names as the one before it, by its leaf; None if it binds none."""
    if facts_digest(change.opening_facts) != parse_leaf(change.opening_leaf).opening_facts_sha256:
        return None
    return parse_facts(change.opening_facts).newest_change
