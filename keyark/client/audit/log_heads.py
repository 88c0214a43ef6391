"""Whether logs only grow: from what this home saw of them before, and from what RM and CM accepted of the DRM's.

Nobody but this home follows the logs of RM and CM. Of each log it keeps the newest checkpoint that it saw, as
``checkpoints/<role>.note``: signed, so that a log which contradicts itself is convicted by its own signature.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyark.client.access.sessions import Session
from keyark.client.access.transport_memory import follow_transport_keys
from keyark.client.audit.findings import Examination, Finding, error
from keyark.client.trust.receipts import AuditedLog, LogMismatchError, log_verifier, seen_verifier, verify_log
from keyark.client.trust.witnesses import FOLLOWERS, Unconfirmed, Witnesses
from keyark.errors import KeyarkError
from keyark.files import UnwritableFileError, make_private_folder, read_file, write_file
from keyark.rpc.calling.channels import call
from keyark.transparency.checkpoint import Checkpoint, CheckpointError, VerifiedHead
from keyark.transparency.merkle import ConsistencyProofError
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.recovery_pb2 import ListArchiveChangesRequest
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub

TIMEOUT: Final = 10.0
MAX_NOTE: Final = 1 << 16
UNKNOWN_CHANGE: Final = "UNKNOWN_CHANGE"
ALARM: Final = "LOG_INCONSISTENT"


@dataclass(frozen=True, kw_only=True)
class LogHead:
    """What a service tells of its log: the answer, and the tree head in it, whose signature was verified."""

    told: audit_pb2.GetCheckpointResponse
    checkpoint: Checkpoint

    @classmethod
    async def fetch(cls, session: Session) -> LogHead:
        """Fetch the newest head as an auditor; raises the errors of ``NoteVerifier`` and of the call."""
        stub = AuditServiceStub(session.channel)
        told = await call(stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), timeout=TIMEOUT)
        return cls(told=told, checkpoint=log_verifier(session.home, session.role).verify(told.checkpoint))


async def log_leads_on(examination: Examination, session: Session, head: LogHead) -> AsyncIterator[Finding]:
    """Whether a log leads on from what was seen of it before; then ``head`` is kept to compare the next with.

    Raises UnwritableFileError where the home cannot be written.
    """
    path = _path(session)
    try:
        seen = await _check_seen(session, head.checkpoint)
    except (CheckpointError, ConsistencyProofError) as failure:
        yield error(
            session.role,
            f"its log does not continue the one that this home saw before: {failure.message}",
            f"mv {path} {path}.evidence  # once you know why, such as a restored backup",
        )
        return
    if head.checkpoint.size > seen.size:
        _keep(path, head.told.checkpoint)


async def _check_seen(session: Session, head: Checkpoint) -> Checkpoint:
    """Return the head that this home saw before, once a log leads on from it; raises where it does not."""
    path = _path(session)
    seen = Checkpoint(f"{session.home.config.trust_domain}/{session.role}", 0, bytes(32))
    if path.exists():
        seen = seen_verifier(session.home, session.role).verify(read_file(path, max_size=MAX_NOTE))
    await _check_leads_on(session, seen, head)
    return seen


def _path(session: Session) -> Path:
    return session.home.folder / "checkpoints" / f"{session.role}.note"


def _keep(path: Path, note: bytes) -> None:
    make_private_folder(path.parent)
    write_file(path, note, mode=0o600)


@dataclass(frozen=True, kw_only=True)
class LogAudit:
    """The verified logs by role, the failures of the others, and the witnesses that did not confirm the DRM's log."""

    logs: Mapping[str, AuditedLog]
    failures: Mapping[str, KeyarkError]
    unconfirmed: Unconfirmed

    def check(self) -> None:
        """Raise the failure of a log, if there is one; the worst first, a service that did not answer last."""
        if failures := sorted(
            self.failures.values(), key=lambda failure: failure.kind.leaves_outcome_unknown
        ):
            raise failures[0]


async def audit_logs(witnesses: Witnesses) -> LogAudit:
    """Verify every log to its last entry, as an auditor, and that each continues what this home saw before.

    The DRM's log must also be the one that RM and CM follow. A log that fails does not stop the others; the
    result has all failures.
    """
    logs: dict[str, AuditedLog] = {}
    failures: dict[str, KeyarkError] = {}
    unconfirmed: Unconfirmed = {}
    for session in (*witnesses.followers, witnesses.archive):
        try:
            log = await verify_log(session)
            if session.role == "drm":
                unconfirmed = await witnesses.confirm_where_possible([VerifiedHead(log.checkpoint, log.note)])
            else:
                await _check_and_keep(session, VerifiedHead(log.checkpoint, log.note))
            logs[session.role] = log
        except KeyarkError as failure:
            failures[session.role] = failure
    return LogAudit(logs=logs, failures=failures, unconfirmed=unconfirmed)


async def follow_head(session: Session) -> VerifiedHead:
    """Return the newest head of a log, as an auditor; of the RM's and the CM's, one that leads on from what was seen.

    ``Witnesses.confirm_where_possible`` says whether the DRM's does. Raises LogMismatchError, and the errors of
    ``NoteVerifier`` and of the calls.
    """
    try:
        return await _follow_head(session)
    except (CheckpointError, LogMismatchError):
        # A reader that stays open may know an older transport key than the one in force, or another program kept a
        # newer head between the two looks.
        if session.role == "drm":
            await follow_transport_keys(session.home, session.channel)
        return await _follow_head(session)


async def _follow_head(session: Session) -> VerifiedHead:
    told = await LogHead.fetch(session)
    head = VerifiedHead(told.checkpoint, told.told.checkpoint)
    if session.role != "drm":
        await _check_and_keep(session, head)
    return head


async def _check_and_keep(session: Session, log: VerifiedHead) -> None:
    """Raise LogMismatchError unless a log leads on from what this home saw of it; then keep its head."""
    try:
        seen = await _check_seen(session, log.checkpoint)
    except (CheckpointError, ConsistencyProofError) as failure:
        raise LogMismatchError(
            f"The {session.role} log does not continue the one that this home saw before: "
            f"{failure.message} Keep a copy of {_path(session)}, and tell the operators of all three "
            "services."
        ) from None
    if log.checkpoint.size > seen.size:
        with contextlib.suppress(UnwritableFileError):
            _keep(_path(session), log.note)


async def followed_log_leads_on(examination: Examination) -> AsyncIterator[Finding]:
    """Whether the DRM's log leads on from the trees that RM and CM accepted: they refuse to go on with another."""
    told = [(role, await _followed(examination, role)) for role in FOLLOWERS]
    followed = [(role, accepted) for role, accepted in told if accepted is not None]
    async with examination.session("drm", "auditor") as archive:
        head = (await LogHead.fetch(archive)).checkpoint  # newer than what the others accepted
        for role, accepted in followed:
            try:
                await _check_leads_on(archive, accepted, head)
            except ConsistencyProofError as failure:
                yield error(
                    role,
                    f"the DRM's log is not the one whose {accepted.size} leaves it knows: {failure.message}",
                    f"keyark-drm check {examination.service_file('drm')}  # with it stopped: tells the head "
                    "of its log and its newest change of agents or storage keys. If you know that it came from a "
                    f"backup, rotate its transport key, and confirm all three to the stopped {role.upper()}: "
                    "clear-alarm --restored SIZE:ROOT --transport-key PEM --newest-change ID",
                )


async def followed_changes_are_known(examination: Examination) -> AsyncIterator[Finding]:
    """Whether the DRM knows the newest change of agents and storage keys that RM and CM believe.

    They believe no further change of a DRM that does not: of one that was restored without it.
    """
    told = [(role, await _believed_change(examination, role)) for role in FOLLOWERS]
    async with examination.session("drm", "auditor") as archive:
        stub = KeyRecoveryServiceStub(archive.channel)
        for role, change in told:
            if not change:
                continue
            try:
                await call(
                    stub.ListArchiveChanges, ListArchiveChangesRequest(newest_change=change), timeout=TIMEOUT
                )
            except KeyarkError as failure:
                if failure.reason != UNKNOWN_CHANGE:
                    raise
                yield error(
                    role,
                    "has accepted a change of agents or storage keys that the DRM does not know, so it "
                    f"accepts no further one: {change.hex()}",
                    f"keyark-drm check {examination.service_file('drm')}  # with it stopped: lists its changes. If you "
                    f"know that it came from a backup, confirm that to the stopped {role.upper()}: clear-alarm "
                    "--restored SIZE:ROOT --transport-key PEM --newest-change ID",
                )


async def _believed_change(examination: Examination, role: str) -> bytes:
    """Return the newest change that a service believes; empty before the first, where it is away, or has an alarm."""
    try:
        async with examination.session(role, "auditor") as session:
            stub, request = AuditServiceStub(session.channel), audit_pb2.CosignCheckpointRequest()
            return bytes((await call(stub.CosignCheckpoint, request, timeout=TIMEOUT)).newest_change)
    except KeyarkError as failure:
        if failure.kind.leaves_outcome_unknown or failure.reason == ALARM:
            return b""
        raise


async def _followed(examination: Examination, role: str) -> Checkpoint | None:
    """Return the tree of the DRM's log that a service accepted; None where it is away, which another check tells."""
    try:
        async with examination.session(role, "auditor") as session:
            told = (await LogHead.fetch(session)).told
    except KeyarkError as failure:
        if failure.kind.leaves_outcome_unknown:
            return None
        raise
    return Checkpoint(f"{examination.home.config.trust_domain}/drm", told.followed_size, told.followed_root)


async def _check_leads_on(session: Session, first: Checkpoint, second: Checkpoint) -> None:
    """Raise ConsistencyProofError unless the first tree is a prefix of the second, as the service has to prove."""
    if first.size == 0:
        return
    proof: list[bytes] = []
    if first.size < second.size:
        stub = AuditServiceStub(session.channel)
        request = audit_pb2.GetConsistencyProofRequest(first_size=first.size, second_size=second.size)
        proof = list((await call(stub.GetConsistencyProof, request, timeout=TIMEOUT)).link.proof)
    second.check_extends(first, proof)
