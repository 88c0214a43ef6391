"""What an operator confirms to RM and CM of a DRM that was restored from a backup, and how they go on from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from keyark.clock import Clock
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.records.v1.trust_pb2 import ArchiveTrustRecord
from keyark.service.checks.archive_trust import (
    go_back,
    kept_changes,
    read_kept,
    read_trust,
)
from keyark.service.settings import ArchiveTrust, ServiceSettings
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.checkpoint import Checkpoint
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.transport_keys import FollowedTransportKeys, certified_key_id
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import encode_certificate, load_certificates

NO_CHANGE: Final = "none"


class ChangeNeverBelievedError(KeyarkError):
    """The restored DRM's newest change of agents or storage keys is none that this service ever believed."""

    reason = "CHANGE_NEVER_BELIEVED"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """The head of the restored DRM's log, the transport key that it began since, and its newest change of trust.

    The key is what tells the log from the one that was lost: both lead on from the head. Who kept receipts or heads of
    the lost one has the signatures of the keys before. The change is the newest one of agents or storage keys that the
    DRM holds (its id; empty for none): the next one leads on from it.
    """

    head: Checkpoint
    transport: TransportCertificate
    newest_change: bytes

    @classmethod
    def read(
        cls, service: ServiceSettings, *, head: str | None, transport: Path | None, newest_change: str | None
    ) -> Restoration | None:
        """Read what the command line names: all of it, or nothing; raises InvalidInputError and the errors of files."""
        if head is None and transport is None and newest_change is None:
            return None
        if head is None or transport is None or newest_change is None:
            raise InvalidInputError(
                "After a restore, rotate the DRM's transport key. Then confirm three things: --restored "
                "SIZE:ROOT and --newest-change ID as `keyark-drm check` prints them for the restored store, "
                "and --transport-key with the new key's transport.pem. Otherwise the RM could still use what "
                "it kept of the lost log."
            )
        certificate = encode_certificate(load_certificates(transport)[0])
        return cls(
            head=_head(f"{service.trust_domain}/drm", head),
            transport=TransportCertificate(certificate=certificate),
            newest_change=_change(newest_change),
        )

    def is_confirmed(self, keys: FollowedTransportKeys, heads: AcceptedHeads) -> bool:
        """Say whether head and key were confirmed before, and nothing was accepted since."""
        same_head = (heads.size, heads.root) == (self.head.size, self.head.root)
        return same_head and keys.newest_id == certified_key_id(self.transport)

    def step_back(self, txn: ReadTransaction, archive: ArchiveTrust, trust_domain: str) -> StepBack | None:
        """Return what has to be believed again; None where the DRM holds the newest change that is believed here.

        Raises ChangeNeverBelievedError.
        """
        present = read_trust(txn, archive, trust_domain)
        if present.newest_change == self.newest_change:
            return None
        former = read_kept(txn, self.newest_change)
        if former is None:
            known = ", ".join(_name(change) for change in (*kept_changes(txn), present.newest_change))
            raise ChangeNeverBelievedError(
                f"This service never accepted the change {_name(self.newest_change)}. If `keyark-drm check` "
                f"lists some of these, give the last one that it lists: {known}. This service then follows "
                "the DRM's later changes. If it lists none of them, the backup belongs to another DRM, or is "
                "older than what this service remembers."
            )
        return StepBack(present=present, former=former, configured=archive.storage_key_ids)

    def __str__(self) -> str:
        """Say it to people."""
        return f"from now on the DRM's log must continue {self.head.size}:{self.head.root.hex()}"


@dataclass(frozen=True, kw_only=True)
class StepBack:
    """From the agents and storage keys that are believed now to those of an earlier change, which were believed then.

    Nothing is believed that a quorum or the configuration had not put in force here before.
    """

    present: ArchiveTrustRecord
    former: ArchiveTrustRecord
    configured: frozenset[bytes]

    @property
    def lines(self) -> list[str]:
        """What to show to people: all that is believed then, and what is not any more."""
        lines = [
            "The newest change of agents and storage keys of the restored DRM is "
            f"{_name(self.former.newest_change)}. The newest one that this service has accepted is "
            f"{_name(self.present.newest_change)}.",
            f"trusted from then on: {self.former.quorum} of these agents",
        ]
        lines += [f"    {_with_key(*agent)}" for agent in _agents(self.former)]
        kept = sorted(self.configured | set(self.former.storage_key_ids))
        lines += [f"    storage key {key_id.hex()}" for key_id in kept]
        left = [agent for agent in _agents(self.present) if not self._stays(agent)]
        lost = sorted(set(self.present.storage_key_ids) - set(kept))
        if left or lost:
            lines.append("and no longer:")
        lines += [f"    {_with_key(*agent)}" for agent in left]
        return lines + [f"    storage key {key_id.hex()}" for key_id in lost]

    def _stays(self, agent: tuple[str, bytes]) -> bool:
        """Whether an agent of now was one then, with the same share key where that is known."""
        return agent in _agents(self.former) or (agent[0], b"") in _agents(self.former)

    @property
    def digest(self) -> str:
        """The SHA-256 (hexadecimal) of what was shown, by which an operator confirms it."""
        return sha256("\n".join(self.lines).encode()).hexdigest()

    def leaf(self, clock: Clock) -> LoggedEvent:
        """Return the log's entry."""
        event = AuditEvent(
            version=EVENT_VERSION, type=EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED, time_us=clock.now_us()
        )
        message = " ".join(line.strip() for line in self.lines)
        return new_event(event, AuditDetails(message=f"The operator confirmed a restore. {message}"))

    def write(self, txn: WriteTransaction) -> None:
        """Believe it, and keep what is believed now."""
        go_back(txn, self.present, self.former)


def _agents(record: ArchiveTrustRecord) -> list[tuple[str, bytes]]:
    """Each agent and the SHA-256 of its share key; empty until a change of agents said which that is."""
    share_keys = list(record.share_key_ids) or [b""] * len(record.agents)
    return list(zip(record.agents, share_keys, strict=True))


def _with_key(agent: str, share_key_id: bytes) -> str:
    return f"{agent} with share key {share_key_id.hex()}" if share_key_id else agent


def _name(change: bytes) -> str:
    return change.hex() or NO_CHANGE


def _head(origin: str, text: str) -> Checkpoint:
    """Read the size of a tree, decimal, and its root, 64 hexadecimal digits."""
    found = re.fullmatch(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", text)
    if found is None:
        raise InvalidInputError(
            f"{text!r} is not a SIZE:ROOT of a log; copy it from what `keyark-drm check` prints."
        )
    return Checkpoint(origin, int(found[1]), bytes.fromhex(found[2]))


def _change(text: str) -> bytes:
    if text == NO_CHANGE:
        return b""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise InvalidInputError(
            f"{text!r} is not the id of a change of agents or storage keys; `keyark-drm check` prints the "
            f"newest, or {NO_CHANGE}."
        )
    return bytes.fromhex(text)
