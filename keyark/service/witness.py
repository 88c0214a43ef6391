"""RM and CM as witnesses of the DRM's log: they accept newer heads that lead on, durably, and cosign the newest.

What c2sp.org/tlog-witness calls add-checkpoint. A client that relies on an entry which is newer than the last batch
brings the witness up to date, with the DRM's signed head and its consistency proof. The witness verifies both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError, KeyarkError
from keyark.service.evidence import ReceiptChecks
from keyark.transparency.checkpoint import CheckpointSignatureError, NoteVerifier, VerifiedHead
from keyark.transparency.cosignatures import Cosigner
from keyark.transparency.heads import AcceptedHeads, LogInconsistentError
from keyark.transparency.merkle import verify_consistency
from keyark.v1.audit_pb2 import CheckpointLink
from keyark.v1.common_pb2 import TransportCertificate

MAX_CERTIFICATES: Final = 16
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
        return self.cosigner.cosign(note, at=self.checks.clock.now_us() // 1_000_000)

    async def take(
        self, note: bytes, link: CheckpointLink, certificates: Sequence[TransportCertificate]
    ) -> None:
        """Accept a signed head that leads on from the newest accepted one; check one that is older against it.

        ``link`` leads from the smaller to the larger of the two trees. Raises CheckpointGapError where it starts
        elsewhere, CheckpointMismatchError and ConsistencyProofError where the two trees do not belong to one log,
        LogInconsistentError, which is an alarm, and the errors of ``NoteVerifier``.
        """
        head = self._verify(note, certificates)
        if len(link.proof) > MAX_PROOF:
            raise InvalidInputError(
                f"A consistency proof has at most {MAX_PROOF} hashes.", field="link.proof"
            )
        try:
            if head.checkpoint.size < self.heads.size and not self.heads.remembers(head.checkpoint):
                verify_consistency(
                    first_size=head.checkpoint.size,
                    second_size=self.heads.size,
                    first_root=head.checkpoint.root,
                    second_root=self.heads.root,
                    proof=link.proof,
                )
            else:
                self.heads.accept([link], [head])
        except LogInconsistentError:
            await self.heads.record_alarm(
                store=self.checks.store, log=self.checks.log, clock=self.checks.clock
            )
            raise

    def _verify(self, note: bytes, certificates: Sequence[TransportCertificate]) -> VerifiedHead:
        if len(certificates) > MAX_CERTIFICATES:
            raise InvalidInputError(
                f"At most {MAX_CERTIFICATES} transport certificates come along.",
                field="transport_certificates",
            )
        now, keys = self.checks.clock.now_us() // 1_000_000, []
        for certificate in certificates:
            with contextlib.suppress(KeyarkError):  # an older key's certificate may have expired
                keys.append(self.checks.trust.verify(certificate, now))
        if not keys:
            raise CheckpointSignatureError(
                "No transport certificate that is in force came along; send those of the DRM."
            )
        checkpoint = NoteVerifier.from_public_key(self.checks.origin, *keys).verify(note)
        return VerifiedHead(checkpoint, note)
