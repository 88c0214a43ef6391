"""The disposable worker of one ceremony: shares, PIN, storage private key and recovered key exist in it alone.

It is started for one piece of work and ends with it. What it is given is sealed, and what it returns is sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from drm_service.ceremonies.key_states import check_recoverable
from drm_service.keys.storage_keys import storage_key_id
from drm_service.records import damaged_key, read_contents
from keyark.custody.matching import prove_match
from keyark.custody.shares import QuorumNotReachedError, Share, WrongShareError
from keyark.custody.storage import (
    HybridPrivateKey,
    HybridPublicKey,
    SealError,
    StoragePrivateKey,
    StoragePublicKey,
)
from keyark.custody.token import (
    TokenError,
    check_share,
    create_software_token,
    open_software_token,
    seal_software_token,
)
from keyark.errors import KeyarkError, NotFoundError
from keyark.records.v1.drm_pb2 import (
    AgentShares,
    ArchivedKeyRecord,
    CeremonyResult,
    CeremonyTask,
    CeremonyWorkerSetup,
    ChangeAgentsTask,
    NewStorageKeyTask,
    RecoverKeyTask,
    ResealKeyTask,
    SoftwareToken,
    Tokens,
)
from keyark.service.failures import pack_failure
from keyark.statements.ceremonies import Opening, open_released_share, seal_recovered_key, share_key_of
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import AuditEvent
from keyark.v1.recovery_pb2 import ReleasedShare

FACTORY: Final = "drm_service.ceremonies.worker:open_worker"


@dataclass(frozen=True)
class CeremonyWorker:
    """What one ceremony's worker knows; nothing opens before it is needed."""

    setup: CeremonyWorkerSetup

    @property
    def opening(self) -> Opening:
        """What the shares are bound to."""
        return Opening(digest=self.setup.ceremony_digest, leaf_hash=leaf_hash(self.setup.opening_leaf))

    @cached_property
    def tokens(self) -> Mapping[bytes, SoftwareToken]:
        """The tokens by storage key id."""
        return {storage_key_id(token): token for token in self.setup.tokens}

    @cached_property
    def shares(self) -> Mapping[bytes, list[Share]]:
        """Every agent's shares, opened and checked, by storage key id; raises WrongShareError naming the agent."""
        recipient = HybridPrivateKey.from_bytes(self.setup.share_recipient_key)
        return {
            key_id: [self._open_share(recipient, agent, token) for agent in self.setup.shares]
            for key_id, token in self.tokens.items()
        }

    def _open_share(self, recipient: HybridPrivateKey, agent: AgentShares, token: SoftwareToken) -> Share:
        key_id = storage_key_id(token)
        released = next((s for s in agent.shares if s.storage_key_id == key_id), ReleasedShare())
        holder = next((s for s in token.shares if s.agent == agent.agent), None)
        try:
            share = open_released_share(released.ciphertext, recipient, self.opening, key_id)
        except (SealError, WrongShareError):
            raise _wrong_share(agent.agent, "does not open for this ceremony") from None
        if holder is None or holder.index != share.index:
            raise _wrong_share(agent.agent, "is another agent's")
        check_share(token, share)
        return share

    @cached_property
    def storage_keys(self) -> Mapping[bytes, StoragePrivateKey]:
        """The storage private keys by their id; raises QuorumNotReachedError, WrongShareError and TokenError."""
        return {
            key_id: open_software_token(token, self.shares[key_id]) for key_id, token in self.tokens.items()
        }

    def work(self, data: bytes) -> bytes:
        """Work one serialized CeremonyTask; returns a serialized CeremonyResult."""
        task = CeremonyTask.FromString(data)
        try:
            result = self._result(task)
        except KeyarkError as error:
            result = CeremonyResult(failure=pack_failure(error))
        return result.SerializeToString()

    def _result(self, task: CeremonyTask) -> CeremonyResult:
        match task.WhichOneof("task"):
            case "check_shares":
                return CeremonyResult(checked=bool(self.shares) or not self.tokens)
            case "recover_key":
                return CeremonyResult(recovered=self.recover_key(task.recover_key))
            case "change_agents":
                return CeremonyResult(tokens=Tokens(tokens=self.change_agents(task.change_agents)))
            case "reseal_key":
                return self.reseal_key(task.reseal_key)
            case "new_storage_key":
                return CeremonyResult(tokens=Tokens(tokens=[new_storage_key(task.new_storage_key)]))
            case _:
                raise NotFoundError("The ceremony's worker knows no such task.")

    def recover_key(self, task: RecoverKeyTask) -> bytes:
        """Unseal an archived key, prove its match again, and seal it to the requester."""
        check_recoverable(task.record)
        private_key = self._unseal(task.record)
        key_id = AuditEvent.FromString(task.record.leaf).encryption_spki_sha256
        recipient = HybridPublicKey.from_bytes(task.recipient_public_key)
        return seal_recovered_key(private_key, recipient, self.opening.digest, key_id)

    def reseal_key(self, task: ResealKeyTask) -> CeremonyResult:
        """Seal an archived key, its match proven again, under another storage key."""
        storage_key = StoragePublicKey.from_bytes(task.storage_public_key)
        return CeremonyResult(sealed_key=storage_key.seal(self._unseal(task.record), task.record.leaf))

    def _unseal(self, record: ArchivedKeyRecord) -> bytes:
        """Return the private key (PKCS#8 DER) once it proved to be the one of the owner's statement."""
        statement, event = read_contents(record)
        try:
            storage_key = self.storage_keys[record.sealed_key.storage_key_id]
            return prove_match(storage_key.open(record.sealed_key, record.leaf), statement.encryption_spki)
        except (WrongShareError, QuorumNotReachedError, TokenError):
            raise
        except (KeyError, KeyarkError):
            raise damaged_key(event.enrollment_id) from None

    def change_agents(self, task: ChangeAgentsTask) -> list[SoftwareToken]:
        """Put every storage private key under a new PIN, split among the new agents."""
        holders = [share_key_of(holder) for holder in task.holders]
        return [
            seal_software_token(
                self.storage_keys[key_id],
                holders,
                task.quorum,
                generation=token.generation,
                pin_epoch=token.pin_epoch + 1,
            )
            for key_id, token in self.tokens.items()
        ]


def open_worker(setup: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return the function that works a batch of serialized CeremonyTasks; ``setup`` is a CeremonyWorkerSetup."""
    worker = CeremonyWorker(CeremonyWorkerSetup.FromString(setup))

    def work(batch: list[bytes]) -> list[bytes]:
        return [worker.work(task) for task in batch]

    return work


def new_storage_key(task: NewStorageKeyTask) -> SoftwareToken:
    """Make a storage key generation; its private half leaves this process in its token only."""
    token, _ = create_software_token(
        [share_key_of(holder) for holder in task.holders], task.quorum, generation=task.generation
    )
    return token


def _wrong_share(agent: str, how: str) -> WrongShareError:
    return WrongShareError(
        f"The share of {agent} {how}; show the ceremony and approve again, or ask another agent.",
        metadata={"agent": agent},
    )
