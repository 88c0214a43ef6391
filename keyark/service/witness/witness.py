"""RM and CM as witnesses of the DRM's log: they accept newer heads that lead on, durably, and cosign the newest.

What c2sp.org/tlog-witness calls add-checkpoint. A client that relies on an entry which is newer than the last batch
brings the witness up to date, with the DRM's signed head and its consistency proof. The witness verifies both.

A head can raise the alarm, which stops the subsystem. So nobody brings one with a certificate alone: an agent has to be
one whom the subsystem believes. Whoever brings a head answers for it in the alarm.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from keyark.errors import InvalidInputError, PermissionDeniedError
from keyark.errors.services import LogInconsistentError, WitnessQuotaError
from keyark.identity.spiffe import SpiffeId
from keyark.service.checks.evidence import ReceiptChecks
from keyark.statements.ceremonies import AGENT_ROLE
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.checkpoint import parse_checkpoint
from keyark.transparency.cosignatures import Cosigner
from keyark.transparency.heads import AcceptedHeads

MAX_PROOF: Final = 64
MAX_PER_HOUR: Final = 600
"""How often one agent or auditor may bring a head or changes within a clock hour; the RM does so for everybody."""
HOUR_US: Final = 3_600_000_000
RM_ROLE: Final = "rm"
AUDITOR_ROLE: Final = "auditor"


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Accepts and cosigns heads of the log that a subsystem follows."""

    checks: ReceiptChecks
    cosigner: Cosigner
    _brought: Counter[tuple[int, str]] = field(default_factory=Counter, repr=False)

    @property
    def heads(self) -> AcceptedHeads:
        """What was accepted."""
        return self.checks.heads

    @property
    def newest_change(self) -> bytes:
        """The id of the newest change of agents or storage keys that is believed here; empty before the first."""
        return self.checks.storage_keys.newest_change

    @property
    def transport_key_id(self) -> bytes:
        """The id (32 bytes) of the newest transport key that is known here; empty before the first."""
        return self.checks.keys.newest_id

    async def cosign(self) -> bytes:
        """Return the newest accepted head, cosigned; empty before the first. Raises LogInconsistentError."""
        if self.heads.alarm.message:
            raise LogInconsistentError(self.heads.alarm.message)
        note = self.heads.note
        if note is None:
            return b""
        await self.checks.store.update(self.heads.record)  # this head, or one that leads on from it
        return self._sign(note)

    async def cosign_accepted(self, note: bytes) -> bytes:
        """Add the cosignature to a note of the newest accepted head, or of one that it leads on from.

        The caller has seen who else cosigned it. Returns empty bytes for a tree that is not remembered as accepted.
        Raises LogInconsistentError.
        """
        if self.heads.alarm.message:
            raise LogInconsistentError(self.heads.alarm.message)
        if not self.heads.remembers(parse_checkpoint(note)):
            return b""
        await self.checks.store.update(self.heads.record)
        return self._sign(note)

    def _sign(self, note: bytes) -> bytes:
        return self.cosigner.cosign(note, at=self.checks.clock.now_us() // 1_000_000)

    async def accept_head_from(self, caller: SpiffeId, note: bytes, evidence: ArchiveEvidence) -> None:
        """Accept what a caller brings: changes of agents and storage keys, then a head, as ``take`` does.

        Any agent may bring changes, for a quorum's word counts, whoever shows it; a head only who is believed then.
        Raises PermissionDeniedError, WitnessQuotaError, and the errors of ``ReceiptChecks.accept_changes``.
        """
        self._count(caller, max(len(evidence.trust_changes), 1))
        if not evidence.trust_changes or caller.role != AGENT_ROLE:
            self._admit(caller)
        if evidence.trust_changes:
            _check_proofs(evidence)
            await self.checks.follow(evidence)
            await self.checks.accept_changes(evidence)
        if note:
            self._admit(caller)
            await self.take(note, evidence)

    def _count(self, caller: SpiffeId, brought: int) -> None:
        if caller.role == RM_ROLE:
            return
        hour = self.checks.clock.now_us() // HOUR_US
        for earlier in [place for place in self._brought if place[0] != hour]:
            del self._brought[earlier]
        if self._brought[hour, str(caller)] + brought > MAX_PER_HOUR:
            raise WitnessQuotaError(
                f"{caller} has sent {MAX_PER_HOUR} heads and changes of the DRM's log within this hour; try "
                "again in the next hour."
            )
        self._brought[hour, str(caller)] += brought

    def _admit(self, caller: SpiffeId) -> None:
        believed = caller.role == AGENT_ROLE and str(caller) in self.checks.storage_keys.agents
        if not believed and caller.role not in (RM_ROLE, AUDITOR_ROLE):
            raise PermissionDeniedError(
                f"{caller} may ask for the newest head of the DRM's log, but may not send one. Only the RM, "
                "auditors and the recovery agents whom this service trusts may. If you became an agent "
                "recently, send that change first."
            )

    async def take(self, note: bytes, evidence: ArchiveEvidence) -> None:
        """Accept a signed head that leads on from the newest accepted one; check one that is older against it.

        The link of ``evidence`` leads from the smaller to the larger of the two trees. Raises CheckpointGapError where
        it starts elsewhere, CheckpointMismatchError where the two trees do not belong to one log,
        LogInconsistentError, which is an alarm, TransportKeyRetiredError, and the errors of ``NoteVerifier``.
        """
        (link,) = evidence.links
        _check_proofs(evidence)
        await self.checks.follow(evidence)
        head, key = self.checks.keys.verify_head(note)
        self.checks.check_signer(head, key)
        if head.checkpoint.size < self.heads.size and not self.heads.remembers(head.checkpoint):
            self.heads.check_same_log(head, link)
            return
        async with self.checks.recording_alarms(evidence.brought_by):
            self.heads.accept([link], [head])


def _check_proofs(evidence: ArchiveEvidence) -> None:
    if any(len(link.proof) > MAX_PROOF for link in evidence.links):
        raise InvalidInputError(f"A consistency proof has at most {MAX_PROOF} hashes.", field="link.proof")
