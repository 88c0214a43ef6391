"""What an agent holds the archive to, pinned on its own disk: who holds shares, their quorum, and the storage keys.

The first pins come from the agents themselves (their ``share-key.json`` files), never from the archive. From there on
they change only by a ceremony that a quorum of the pinned agents approved, which this client verified::

    pins = ArchivePins.load(folder)
    pins = pins.follow(change, opened, trust=trust, now=now)
    pins.check(reviewed)
    pins.save(folder)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from keyark.client.recovery.review import ROTATE, ReviewedCeremony, mismatch
from keyark.custody.agents import AgentShareKey, check_not_former
from keyark.custody.shares import QuorumRule, check_quorum
from keyark.errors import ConfigurationError, KeyarkError, Kind
from keyark.files import read_secret_file, write_file
from keyark.identity.revoked import NOBODY_REVOKED, IdentityRevokedError
from keyark.statements.ceremonies import AgentTrust, CeremonyRequest, Opening, verify_decision, verify_request
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.opening_facts import change_id, facts_digest, parse_facts
from keyark.transparency.receipts import ProvenEntry
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import CeremonyProof, CeremonyType, OpeningFacts, StorageKeyFacts
from keyark.x509.chains import CertificateChainError

FILE: Final = "archive-pins.json"

_VERSION: Final = 2
_MAX_FILE: Final = 1 << 20
_CHANGE: Final = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
_RESEAL: Final = CeremonyType.CEREMONY_TYPE_RESEAL_KEYS


class PinsMissingError(ConfigurationError):
    """The agent's home does not say who the agents are."""

    reason = "PINS_MISSING"


class PinsBehindError(KeyarkError):
    """A ceremony was opened after another change of agents or storage keys than the newest that is pinned."""

    reason = "PINS_BEHIND"
    kind = Kind.PRECONDITION


class ArchiveChangeError(KeyarkError):
    """A change of agents or storage keys that the archive shows does not have the word of the pinned agents."""

    reason = "ARCHIVE_CHANGE"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class ArchivePins:
    """The pinned agents (SPIFFE ID to SHA-256 of the share public key), their quorum, and the storage keys.

    ``storage_keys`` are ids by generation, ``pin_epochs`` how often the PIN of each was changed, from 1. ``changes``
    are the ids of the changes of agents and storage keys that led here, the newest last: each names the one before it.
    ``approved`` are the changes that this agent approved itself and did not see carried out or ended yet: ceremony ids
    by request digest. ``former_share_keys`` are the share keys (SHA-256) that changes of agents took out: none of them
    comes back.
    """

    agents: Mapping[str, bytes]
    quorum: int
    self_approval: bool
    storage_keys: tuple[bytes, ...]
    pin_epochs: tuple[int, ...]
    changes: tuple[bytes, ...] = ()
    approved: Mapping[bytes, bytes] = field(default_factory=dict)
    former_share_keys: frozenset[bytes] = frozenset()

    @classmethod
    def first(
        cls,
        share_keys: Sequence[AgentShareKey],
        *,
        quorum: int,
        rule: QuorumRule,
        storage_keys: Iterable[bytes],
        pin_epochs: Iterable[int] = (),
        newest_change: bytes = b"",
    ) -> ArchivePins:
        """Pin agents by their own public files, which the caller verified; raises QuorumError.

        ``newest_change`` is the id of the newest change of agents or storage keys; empty where there was none, and then
        every PIN epoch is 1, which may be left out.
        """
        key_ids = tuple(storage_keys)
        agents = {key.agent: sha256(key.public_key).digest() for key in share_keys}
        check_quorum(len(agents), quorum, rule=rule)
        return cls(
            agents=agents,
            quorum=quorum,
            self_approval=rule is not QuorumRule.SEPARATE,
            storage_keys=key_ids,
            pin_epochs=tuple(pin_epochs) or (1,) * len(key_ids),
            changes=(newest_change,) if newest_change else (),
        )

    @classmethod
    def load(cls, folder: Path) -> ArchivePins:
        """Read the pins of an agent from its own folder; raises PinsMissingError and ConfigurationError."""
        path = folder / FILE
        if not path.exists():
            raise PinsMissingError(
                f"{path} does not exist, so nothing says who the agents are. Pin them once with `keyark "
                "agents pin`, from their share-key.json files."
            )
        try:
            return cls._from_values(json.loads(read_secret_file(path, max_size=_MAX_FILE)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ConfigurationError(
                f"{path} is damaged or of an older version; make it again with `keyark agents pin`."
            ) from None

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> ArchivePins:
        if values["version"] != _VERSION:
            raise ValueError("another version")
        return cls(
            agents={str(name): bytes.fromhex(key) for name, key in values["agents"].items()},
            quorum=int(values["quorum"]),
            self_approval=values["self_approval"] is True,
            storage_keys=tuple(bytes.fromhex(key_id) for key_id in values["storage_keys"]),
            pin_epochs=tuple(int(epoch) for epoch in values["pin_epochs"]),
            changes=tuple(bytes.fromhex(change) for change in values["changes"]),
            approved={bytes.fromhex(key): bytes.fromhex(name) for key, name in values["approved"].items()},
            former_share_keys=frozenset(bytes.fromhex(key) for key in values.get("former_share_keys", ())),
        )

    def save(self, folder: Path) -> None:
        """Write the pins durably; raises UnwritableFileError."""
        values = {
            "version": _VERSION,
            "agents": {agent: key.hex() for agent, key in self.agents.items()},
            "quorum": self.quorum,
            "self_approval": self.self_approval,
            "storage_keys": [key_id.hex() for key_id in self.storage_keys],
            "pin_epochs": list(self.pin_epochs),
            "changes": [change.hex() for change in self.changes],
            "approved": {digest.hex(): ceremony.hex() for digest, ceremony in self.approved.items()},
            "former_share_keys": sorted(key.hex() for key in self.former_share_keys),
        }
        write_file(folder / FILE, (json.dumps(values, indent=2) + "\n").encode(), mode=0o600)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over agents, quorum, storage keys and newest change, hexadecimal: for agents to compare by mouth."""
        lines = [f"{self.quorum} {self.self_approval}"]
        lines += sorted(f"{agent} {key.hex()}" for agent, key in self.agents.items())
        epochs = zip(self.storage_keys, self.pin_epochs, strict=True)
        lines += [f"{key_id.hex()} {epoch}" for key_id, epoch in epochs]
        lines.append(self.newest_change.hex())
        return sha256("\n".join(lines).encode()).hexdigest()

    @property
    def newest_change(self) -> bytes:
        """The id of the newest change that was followed, 32 bytes; empty before the first."""
        return self.changes[-1] if self.changes else b""

    def after(self, earlier: ArchivePins) -> ArchivePins:
        """Return these pins with the former share keys of earlier ones, and what was pinned then and is no more.

        Pins that go back behind the newest change, as after a restore of the archive, make nobody's share key a former
        one: the change is to be made again.
        """
        former = set(earlier.former_share_keys)
        if self.newest_change not in (b"", *earlier.changes):
            former |= set(earlier.agents.values())
        return replace(self, former_share_keys=frozenset(former - set(self.agents.values())))

    def approving(self, request: CeremonyRequest) -> ArchivePins:
        """Return the pins that remember a change of agents which this agent is about to approve, and nothing else.

        A new storage key that is kept from it gives nobody a share, so it holds nothing up either.
        """
        if request.type != _CHANGE:
            return self
        return replace(self, approved={**self.approved, request.digest: request.ceremony_id})

    def ended(self, digest: bytes) -> ArchivePins:
        """Return the pins without a change (request digest) that this agent approved and that came to its end."""
        left = {known: ceremony for known, ceremony in self.approved.items() if known != digest}
        return replace(self, approved=left)

    def follow(
        self, change: CeremonyProof, opened: ProvenEntry, *, trust: AgentTrust, now: int
    ) -> ArchivePins:
        """Return the pins after a change whose opening was proven to be in the log; ``now`` is in seconds UTC.

        It has to lead on from the newest change that is pinned, and a quorum of the pinned agents has to have approved
        that very opening, with certificates that are in force now. The requester may have been revoked since.
        Raises ArchiveChangeError, FormerShareKeyError, and the errors of ``verify_request`` and ``verify_decision``.
        """
        requesters = replace(trust, revoked=NOBODY_REVOKED)
        request = verify_request(change.request, requesters, at=opened.event.time_us // 1_000_000)
        facts = _opened_facts(change, opened, request)
        if facts.newest_change != self.newest_change:
            raise ArchiveChangeError(
                "A change that the archive shows does not follow the newest one that is pinned here; examine "
                "the archive's log."
            )
        self._check_quorum(change, opened, request, trust=trust, now=now)
        after = replace(self.ended(request.digest), changes=(*self.changes, change_id(opened.leaf)))
        if request.type == ROTATE:
            self._check_new(facts)
            new = facts.new_storage_key
            return replace(
                after,
                storage_keys=(*self.storage_keys, new.storage_key_id),
                pin_epochs=(*self.pin_epochs, new.pin_epoch),
            )
        self._check_change(request, facts)
        agents = {agent.agent: sha256(agent.public_key).digest() for agent in request.agents}
        epochs = tuple(epoch + 1 for epoch in self.pin_epochs)
        changed = replace(after, agents=agents, quorum=request.message.quorum, pin_epochs=epochs)
        return changed.after(self)

    def _check_change(self, request: CeremonyRequest, facts: OpeningFacts) -> None:
        if {key.storage_key_id for key in facts.storage_keys} != set(self.storage_keys):
            raise ArchiveChangeError(
                "A change of agents that the archive shows left a storage key with former agents; examine "
                "its log."
            )
        for key in facts.storage_keys:
            self.check_storage_key(key)
        check_not_former(request.agents, self.former_share_keys)

    def _check_quorum(
        self,
        change: CeremonyProof,
        opened: ProvenEntry,
        request: CeremonyRequest,
        *,
        trust: AgentTrust,
        now: int,
    ) -> None:
        """Count distinct pinned agents who approved; the word of an expired or revoked one does not count."""
        opening = Opening(digest=request.digest, leaf_hash=leaf_hash(opened.leaf))
        approved = set()
        for signed in change.approvals:
            with contextlib.suppress(CertificateChainError, IdentityRevokedError):
                decision = verify_decision(signed, opening, trust, at=now)
                approved |= {str(decision.agent)} if decision.approves else set()
        if not self.self_approval:
            approved.discard(str(request.requester))
        if len(approved & set(self.agents)) < self.quorum:
            raise ArchiveChangeError(
                f"The archive shows a change that fewer than {self.quorum} pinned agents with valid "
                "certificates approved. Ask them. If they did approve it, pin them again with `keyark agents "
                "pin`."
            )

    def check(self, ceremony: ReviewedCeremony) -> None:
        """Raise CeremonyMismatchError unless a ceremony opens and makes what its type may, among the pinned agents.

        Raises PinsBehindError where its opening names another newest change than is pinned, and FormerShareKeyError.
        """
        facts = ceremony.facts
        self._check_newest(ceremony)
        opened = {key.storage_key_id for key in facts.storage_keys}
        if opened != self._may_open(ceremony):
            raise mismatch("opens storage keys that its type and its keys' receipts do not call for")
        for key in facts.storage_keys:
            self.check_storage_key(key)
        if ceremony.request.type == ROTATE:
            self._check_new(facts)
        check_not_former(ceremony.request.agents, self.former_share_keys)
        target = ceremony.request.message.storage_key_id
        if ceremony.request.type == _RESEAL and target != self.storage_keys[-1]:
            raise mismatch("seals keys under another storage key than the newest that is pinned")

    def check_storage_key(self, key: StorageKeyFacts) -> None:
        """Raise CeremonyMismatchError unless a storage key is a pinned one, split among the pinned agents."""
        if self._of_generation(key.generation) != key.storage_key_id:
            raise mismatch("opens a storage key that is not pinned here (see `keyark agents pins`)")
        if key.pin_epoch != self.pin_epochs[key.generation - 1]:
            raise mismatch("opens a storage key under an older PIN, which former agents may know")
        self._check_holders(key)

    def _check_newest(self, ceremony: ReviewedCeremony) -> None:
        """A change has to lead on from the newest one; all else may have been opened before others that are pinned."""
        named = ceremony.facts.newest_change
        changes = ceremony.request.type in (_CHANGE, ROTATE)
        if named != self.newest_change and (changes or named not in (b"", *self.changes)):
            raise PinsBehindError(
                "The ceremony was not opened after the newest change of agents or storage keys that this "
                "agent has pinned. If the archive shows no further change, it hides one, or shows an older "
                "ceremony: approve nothing, and compare `keyark agents pins` with the other agents."
            )

    def _may_open(self, ceremony: ReviewedCeremony) -> set[bytes]:
        match ceremony.request.type:
            case CeremonyType.CEREMONY_TYPE_RECOVER_KEYS:
                return set(ceremony.sealed_under)
            case CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS:
                return set(self.storage_keys)
            case CeremonyType.CEREMONY_TYPE_RESEAL_KEYS:
                return set(self.storage_keys[:-1])
            case _:
                return set()

    def _of_generation(self, generation: int) -> bytes | None:
        return self.storage_keys[generation - 1] if 1 <= generation <= len(self.storage_keys) else None

    def _check_new(self, facts: OpeningFacts) -> None:
        new = facts.new_storage_key
        if new.generation != len(self.storage_keys) + 1 or new.storage_key_id in self.storage_keys:
            raise mismatch("makes a storage key that does not follow the pinned ones")
        self._check_holders(new)

    def _check_holders(self, key: StorageKeyFacts) -> None:
        holders = {share.agent: share.share_key_id for share in key.shares}
        if holders != dict(self.agents) or key.quorum != self.quorum:
            raise mismatch(
                "splits a storage key among agents or with a quorum that this agent has not pinned"
            )


def _opened_facts(change: CeremonyProof, opened: ProvenEntry, request: CeremonyRequest) -> OpeningFacts:
    """Return the facts of a change; raises ArchiveChangeError unless leaf, request and facts belong together."""
    event = opened.event
    if (
        request.type not in (_CHANGE, ROTATE)
        or opened.leaf != change.opening_leaf
        or event.type != EventType.EVENT_TYPE_CEREMONY_OPENED
        or (event.ceremony_id, event.ceremony_digest) != (request.ceremony_id, request.digest)
        or facts_digest(change.opening_facts) != event.opening_facts_sha256
    ):
        raise ArchiveChangeError(
            "A change that the archive shows does not match the log entry that opened it; examine the "
            "archive's log."
        )
    facts = parse_facts(change.opening_facts)
    if facts.new_storage_key.storage_key_id != event.storage_key_id:
        raise ArchiveChangeError("A change that the archive shows names two storage keys; examine its log.")
    return facts
