"""What an agent has to see of a ceremony before it decides, verified: nothing of it rests on the archive's word.

The request is the requester's own signed words, the leaf that opened it is in the log under a signed checkpoint, and
every key's owner is the one of its archival receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from keyark.client.audit import archive_verifier
from keyark.client.home import Home
from keyark.crypto.ceremonies import AgentTrust, CeremonyRequest, Opening, share_key_of, verify_request
from keyark.errors import KeyarkError, Kind
from keyark.records.v1.drm_pb2 import SealedShare, SealSuite, SoftwareToken
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import ArchivalReceipt, ProvenEntry
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import CeremonyType
from keyark.v1.recovery_pb2 import Ceremony, CeremonyState, StorageKey

_VERSION: Final = 1
RECOVER: Final = CeremonyType.CEREMONY_TYPE_RECOVER_KEYS
ROTATE: Final = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY


class CeremonyMismatchError(KeyarkError):
    """What the archive shows of a ceremony does not fit together; do not approve it."""

    reason = "CEREMONY_MISMATCH"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class ReviewedCeremony:
    """A ceremony that was verified; ``owners`` are the receipts of the keys that it brings back, in their order."""

    view: Ceremony
    request: CeremonyRequest
    opening: Opening
    opened: ProvenEntry
    owners: Sequence[ArchivalReceipt]

    @property
    def ceremony_id(self) -> bytes:
        """16 bytes."""
        return self.request.ceremony_id

    @property
    def state(self) -> CeremonyState.ValueType:
        """Where it stands."""
        return self.view.state


class CeremonyReview:
    """Verifies what the archive shows of ceremonies, against what a home pins."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.trust = AgentTrust(
            trust_domain=home.config.trust_domain, anchors=[home.trust_anchor], revoked=home.revoked
        )
        self._verifier = archive_verifier(home)

    def review(self, view: Ceremony) -> ReviewedCeremony:
        """Verify a ceremony as GetCeremony returns it.

        Raises CeremonyMismatchError, the errors of ``verify_request`` and those of ``ReceiptVerifier``.
        """
        opened = self._verifier.verify_entry(view.opening_proof)
        request = verify_request(view.request, self.trust, at=opened.event.time_us // 1_000_000)
        self._check_opening(view, request, opened)
        owners = [self._verifier.verify(key.receipt) for key in view.keys]
        if [owner.event.encryption_spki_sha256 for owner in owners] != list(request.message.key_ids):
            raise _mismatch("shows receipts of other keys than those that were asked for")
        for agent in request.agents:
            agent.verify(self._home.trust_anchor, at=opened.event.time_us // 1_000_000)
        return ReviewedCeremony(
            view=view,
            request=request,
            opening=Opening(digest=request.digest, leaf_hash=leaf_hash(opened.leaf)),
            opened=opened,
            owners=owners,
        )

    def _check_opening(self, view: Ceremony, request: CeremonyRequest, opened: ProvenEntry) -> None:
        """Hold request, one-time key and new storage key against the leaf that all of them are bound to."""
        event, recovers = opened.event, request.type == RECOVER
        expected = EventType.EVENT_TYPE_RECOVERY_OPENED if recovers else EventType.EVENT_TYPE_CEREMONY_OPENED
        if event.type != expected or (event.ceremony_id, event.ceremony_digest) != (
            view.ceremony_id,
            request.digest,
        ):
            raise _mismatch("was opened in the log as another one")
        key, recipient = view.share_recipient_key, event.share_recipient_sha256
        if key and sha256(key).digest() != recipient:
            raise _mismatch("wants shares sealed to another key than the log says")
        new_key = view.new_storage_key.public_key
        if request.type == ROTATE and new_key and sha256(new_key).digest() != event.storage_key_id:
            raise _mismatch("shows another storage key than the log says")


def token_of(storage_key: StorageKey) -> SoftwareToken:
    """Return the part of a token that an agent opens its own share with; there is no sealed key in it."""
    return SoftwareToken(
        version=_VERSION,
        generation=storage_key.generation,
        pin_epoch=storage_key.pin_epoch,
        public_key=storage_key.public_key,
        quorum=storage_key.quorum,
        shares=[
            SealedShare(
                index=share.index,
                agent=share.holder.agent,
                share_public_key=share.holder.share_public_key,
                share_key_signature=share.holder.signature,
                agent_certificate=share.holder.certificate,
                suite=SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM,
                ciphertext=share.ciphertext,
                commitment=share.commitment,
            )
            for share in storage_key.shares
        ],
    )


def check_new_holders(home: Home, new: StorageKey, present: StorageKey, *, at: int) -> None:
    """Raise CeremonyMismatchError unless a new storage key is split among the present agents, as the present one is.

    ``at`` is in seconds UTC. Raises the errors of ``AgentShareKey.verify`` as well.
    """
    for share in new.shares:
        share_key_of(share.holder).verify(home.trust_anchor, at=at)
    holders, before = ({share.holder.agent for share in key.shares} for key in (new, present))
    if holders != before or new.quorum != present.quorum:
        raise _mismatch("splits the new storage key among others than the present agents")


def _mismatch(how: str) -> CeremonyMismatchError:
    return CeremonyMismatchError(f"The ceremony {how}; do not approve it, and look at the archive's log.")
