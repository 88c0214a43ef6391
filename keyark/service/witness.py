"""RM and CM as witnesses of the DRM's log: they accept newer heads that lead on, durably, and cosign the newest.

What c2sp.org/tlog-witness calls add-checkpoint. A client that relies on an entry which is newer than the last batch
brings the witness up to date, with the DRM's signed head and its consistency proof. The witness verifies both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError
from keyark.service.evidence import ArchiveEvidence, ReceiptChecks
from keyark.transparency.cosignatures import Cosigner
from keyark.transparency.heads import AcceptedHeads, LogInconsistentError

MAX_PROOF: Final = 64


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Accepts and cosigns heads of the log that a subsystem follows."""

    checks: ReceiptChecks
    cosigner: Cosigner

    @property
    def heads(self) -> AcceptedHeads:
        """What was accepted."""
        return self.checks.heads

    async def cosign(self) -> bytes:
        """Return the newest accepted head, cosigned; empty before the first. Raises LogInconsistentError."""
        if self.heads.alarm.message:
            raise LogInconsistentError(self.heads.alarm.message)
        note = self.heads.note
        if note is None:
            return b""
        await self.checks.store.update(self.heads.record)  # this head, or one that leads on from it
        return self.sign(note)

    def sign(self, note: bytes) -> bytes:
        """Add the cosignature to a note of the newest accepted head, which is durable."""
        return self.cosigner.cosign(note, at=self.checks.clock.now_us() // 1_000_000)

    async def take(self, note: bytes, evidence: ArchiveEvidence) -> None:
        """Accept a signed head that leads on from the newest accepted one; check one that is older against it.

        The link of ``evidence`` leads from the smaller to the larger of the two trees. Raises CheckpointGapError where
        it starts elsewhere, CheckpointMismatchError where the two trees do not belong to one log,
        LogInconsistentError, which is an alarm, TransportKeyRetiredError, and the errors of ``NoteVerifier``.
        """
        (link,) = evidence.links
        if len(link.proof) > MAX_PROOF:
            raise InvalidInputError(
                f"A consistency proof has at most {MAX_PROOF} hashes.", field="link.proof"
            )
        await self.checks.follow(evidence)
        head, key = self.checks.keys.verify_head(note)
        self.checks.check_signer(head, key)
        if head.checkpoint.size < self.heads.size and not self.heads.remembers(head.checkpoint):
            self.heads.check_belongs(head, link)
            return
        async with self.checks.recording_alarms():
            self.heads.accept([link], [head])
