"""Whether what the DRM shows stands in the log that everybody sees: RM and CM, its witnesses, and this home's memory.

A DRM can sign a log of its own for one person. So before anything rests on an entry, its tree has to be consistent with
the newest one that this home saw, and with those that RM and CM follow, by their own cosignatures. Where they have not
seen so much yet, they are brought up to date::

    await Witnesses(archive=drm, followers=[rm, cm]).confirm([ceremony.opened])
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource
from keyark.client.access.sessions import Session, open_session
from keyark.client.access.transport_memory import pinned_certificates
from keyark.client.trust.log_memory import remember, remembered
from keyark.client.trust.receipts import seen_verifier
from keyark.client.trust.verification import Enrolled, Verification
from keyark.errors import ConfigurationError, KeyarkError, Kind, UnavailableError
from keyark.files import UnwritableFileError, read_file
from keyark.keys.library import PARSING_ERRORS
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries
from keyark.transparency.checkpoint import Checkpoint, CheckpointSignatureError, VerifiedHead
from keyark.transparency.cosignatures import CosignatureVerifier
from keyark.transparency.merkle import EMPTY_ROOT, ConsistencyProofError
from keyark.transparency.receipts import ArchivalReceipt, ProvenEntry
from keyark.transparency.transport_keys import KNOWN_KEY
from keyark.v1 import audit_pb2
from keyark.v1.archive_pb2 import ListTransportKeyChangesRequest
from keyark.v1.archive_pb2_grpc import TransportKeyServiceStub
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.ceremony_pb2 import CeremonyProof
from keyark.v1.registration_pb2 import GetArchiveHeadRequest, GetArchiveHeadResponse

if TYPE_CHECKING:
    from keyark.v1.registration_pb2_grpc import RegistrationServiceAsyncStub

TIMEOUT: Final = 30.0
FOLLOWERS: Final = ("rm", "cm")
MAX_TREES: Final = 16
ATTEMPTS: Final = 5
MAX_KEY: Final = 1 << 16
_FOLLOWED: Final = "RM and CM follow, or this home saw of it before"
_MOVED: Final = ("CHECKPOINT_GAP", "CHECKPOINT_STALE")
"""The witness accepted another head meanwhile."""
_ALARM: Final = "LOG_INCONSISTENT"
_REFUSALS: Final = (Kind.PRECONDITION, Kind.INVALID, Kind.CONFLICT)
_HOME: Final = "home"

Check: TypeAlias = Callable[[], Awaitable[None]]
Unconfirmed: TypeAlias = Mapping[str, str]
"""The witnesses ("rm", "cm") that do not confirm that something is in the log that they follow, each with why."""


class PrivateLogError(KeyarkError):
    """What the DRM shows is not in the log that RM and CM follow, or that this home saw before."""

    reason = "PRIVATE_LOG"
    kind = Kind.PRECONDITION


class _Told(NamedTuple):
    """The newest head that a witness accepted, and the newest change that it believes.

    One that it did not cosign, for an operator named it, says where links have to lead on from, and confirms nothing.
    """

    accepted: Checkpoint
    is_cosigned: bool
    newest_change: bytes


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """The DRM and the services that follow its log (RM and CM), as one identity reaches them."""

    archive: Session
    followers: Sequence[Session]

    @classmethod
    @asynccontextmanager
    async def open(
        cls, home: Home, *, identity: str, password: PasswordSource, retries: Retries = DEFAULT_RETRIES
    ) -> AsyncIterator[Self]:
        """Open channels to the DRM, RM and CM as one identity; raises ConfigurationError."""
        async with AsyncExitStack() as stack:
            archive, *followers = [
                await stack.enter_async_context(
                    open_session(home, role, identity=identity, password=password, retries=retries)
                )
                for role in ("drm", *FOLLOWERS)
            ]
            yield cls(archive=archive, followers=followers)

    async def confirm(self, entries: Sequence[ProvenEntry]) -> None:
        """Raise PrivateLogError unless all entries are in the log that this home saw before and that RM and CM
        follow.

        The newest tree is remembered. Raises LOG_INCONSISTENT while a witness has an alarm, and the errors of
        the calls if a witness does not answer, since nothing is then known.
        """
        heads = [entry.head for entry in entries]
        if refusals := await self._refusals(heads):
            raise _gravest(refusals.values())
        remember(self.archive.home, _newest(heads))

    async def confirm_where_possible(self, heads: Sequence[VerifiedHead]) -> Unconfirmed:
        """Confirm as far as possible, for readers: return the witnesses that did not answer, each with the reason.

        Otherwise as ``confirm``. The newest tree is remembered if both witnesses confirm it and the home is
        writable.
        """
        refusals = await self._refusals(heads)
        silent = {role: error.message for role, error in refusals.items() if _is_silent(error)}
        if len(silent) < len(refusals) or _HOME in silent:
            raise _gravest(refusals.values())
        if not silent:
            with contextlib.suppress(UnwritableFileError):
                remember(self.archive.home, _newest(heads))
        return silent

    async def _refusals(self, heads: Sequence[VerifiedHead]) -> dict[str, KeyarkError]:
        """Return who does not confirm that these heads are of one log, each with its error."""
        newest = _newest(heads)
        checks: dict[str, Check] = {
            _HOME: partial(self._check_one_log, [head.checkpoint for head in heads], newest.checkpoint)
        }
        for follower in self.followers:
            checks[follower.role] = partial(self._check_followed, follower, newest)
        refusals = {}
        for who, check in checks.items():
            # whatever fails, each witness is shown the tree: its log tells of one that was refused
            try:
                await check()
            except KeyarkError as error:
                refusals[who] = error
        return refusals

    async def _check_one_log(self, seen: Sequence[Checkpoint], newest: Checkpoint) -> None:
        """Hold the newest tree against the others that came with it, and against the one that is remembered."""
        for tree in {*seen, remembered(self.archive.home)}:
            first, second = sorted((tree, newest), key=lambda checkpoint: checkpoint.size)
            if first != second and not _leads_on(first, second, await self._proof(first, second)):
                raise _private("what this home saw of it before")

    async def believed_change(self, follower: Session) -> bytes:
        """Return the id of the newest change of agents or storage keys that a witness has accepted; empty for
        none.
        """
        return (await self._told(follower, audit_pb2.CosignCheckpointRequest())).newest_change

    async def show_changes(
        self, follower: Session, changes: Sequence[CeremonyProof], head: VerifiedHead
    ) -> None:
        """Show a witness changes that follow the newest one that it has accepted, all proven under one head.

        Raises the witness's refusals.
        """
        accepted = (await self._told(follower, audit_pb2.CosignCheckpointRequest())).accepted
        request = audit_pb2.CosignCheckpointRequest(trust_changes=changes)
        await self._bring(follower, head, request, accepted)

    async def _check_followed(self, follower: Session, head: VerifiedHead) -> None:
        """Bring a witness up to date where it has seen less, and hold the head against the newest that it cosigned."""
        told = await self._told(follower, audit_pb2.CosignCheckpointRequest())
        for _ in range(ATTEMPTS):
            accepted = told.accepted
            if told.is_cosigned and accepted == head.checkpoint:
                return
            if told.is_cosigned and accepted.size > head.checkpoint.size:
                proof = await self._proof(accepted, head.checkpoint)
                if _leads_on(head.checkpoint, accepted, proof):
                    return
            request = audit_pb2.CosignCheckpointRequest(checkpoint=head.note)
            try:
                told = await self._bring(follower, head, request, accepted)
            except KeyarkError as error:
                if error.kind not in _REFUSALS:
                    raise
                raise _private(f"the {follower.role.upper()} follows ({error.message})") from error
        raise _moving(follower)

    async def _bring(
        self,
        follower: Session,
        head: VerifiedHead,
        request: audit_pb2.CosignCheckpointRequest,
        accepted: Checkpoint,
    ) -> _Told:
        """Send a witness what stands under a head, with the proof that its own newest head and this one are of one log.

        ``accepted`` is that newest head, as the witness told it. Returns what it tells then.
        """
        request.transport_certificates.extend(pinned_certificates(self.archive.home)[:1])
        unknown_key: bytes | None = None
        for _ in range(ATTEMPTS):
            proof = await self._proof(accepted, head.checkpoint)
            request.link.CopyFrom(_link(accepted, head.checkpoint, proof))
            if unknown_key is not None:
                request.ClearField("transport_key_changes")
                request.transport_key_changes.extend(await self._key_changes(unknown_key, accepted.size))
            try:
                return await self._told(follower, request)
            except KeyarkError as error:
                if error.reason == CheckpointSignatureError.reason and unknown_key is None:
                    unknown_key = bytes.fromhex(error.metadata.get(KNOWN_KEY, ""))
                elif error.reason not in _MOVED:
                    raise
            accepted = (await self._told(follower, audit_pb2.CosignCheckpointRequest())).accepted
        raise _moving(follower)

    async def _told(self, follower: Session, request: audit_pb2.CosignCheckpointRequest) -> _Told:
        """Return what a witness tells, once the DRM's signature and its own were verified."""
        stub = AuditServiceStub(follower.channel)
        answer = await call(stub.CosignCheckpoint, request, timeout=TIMEOUT)
        if not answer.checkpoint:
            origin = f"{follower.home.config.trust_domain}/drm"
            root = answer.followed_root or EMPTY_ROOT
            named = Checkpoint(origin, answer.followed_size, root)
            return _Told(named, is_cosigned=False, newest_change=answer.newest_change)
        cosignature_verifier(follower.home, follower.role).verify(answer.checkpoint)
        accepted = seen_verifier(follower.home, "drm").verify(answer.checkpoint)
        return _Told(accepted, is_cosigned=True, newest_change=answer.newest_change)

    async def _proof(self, one: Checkpoint, other: Checkpoint) -> Sequence[bytes]:
        """Ask the DRM to prove that the smaller tree is a prefix of the larger; one that cannot proves nothing."""
        first, second = sorted((one.size, other.size))
        if first in (0, second):
            return []
        stub = AuditServiceStub(self.archive.channel)
        request = audit_pb2.GetConsistencyProofRequest(first_size=first, second_size=second)
        try:
            return (await call(stub.GetConsistencyProof, request, timeout=TIMEOUT)).link.proof
        except KeyarkError as error:
            if error.kind not in _REFUSALS:
                raise
            return []

    async def _key_changes(self, known: bytes, tree_size: int) -> Sequence[audit_pb2.TransportKeyChange]:
        """Ask the DRM how its transport key changed since the one that a witness knows."""
        stub = TransportKeyServiceStub(self.archive.channel)
        request = ListTransportKeyChangesRequest(known_key_id=known, known_tree_size=tree_size)
        return (await call(stub.ListTransportKeyChanges, request, timeout=TIMEOUT)).changes


def cosignature_verifier(home: Home, role: str) -> CosignatureVerifier:
    """Return what verifies a witness's cosignatures: under the log key that the home pins for "rm" or "cm"."""
    path = home.config.rm_log_key if role == "rm" else home.config.cm_log_key
    try:
        key = load_pem_public_key(read_file(path, max_size=MAX_KEY))
    except PARSING_ERRORS:
        raise ConfigurationError(
            f"{path} has no public key; copy the file from the deployment again."
        ) from None
    return CosignatureVerifier(f"{home.config.trust_domain}/{role}", key)


class ReceiptWitness:
    """Holds the first receipts of a client's session against the log that RM and CM follow.

    One call of the RM, which has the CM cosign: neither can speak for the other.
    """

    def __init__(self, home: Home, stub: RegistrationServiceAsyncStub, verification: Verification) -> None:
        self._home, self._stub, self._verification = home, stub, verification
        self._is_done = False

    async def confirm(self, outcomes: list[Enrolled | KeyarkError]) -> list[Enrolled | KeyarkError]:
        """Return outcomes as they are once their receipts stand in that log; those that fail it become the error."""
        receipts = [o.receipt for o in outcomes if isinstance(o, Enrolled) and o.receipt is not None]
        if self._is_done or not receipts:
            return outcomes
        try:
            await self._confirm(receipts)
        except KeyarkError as error:
            return [error if isinstance(o, Enrolled) and o.receipt is not None else o for o in outcomes]
        self._is_done = True
        return outcomes

    async def _confirm(self, receipts: Sequence[ArchivalReceipt]) -> None:
        """Raise PrivateLogError unless all stand in one log with what this home saw; remember its newest head."""
        seen = {receipt.checkpoint for receipt in receipts} | {remembered(self._home)}
        trees = sorted((tree for tree in seen if tree.size), key=lambda tree: tree.size)
        for start in range(0, len(trees), MAX_TREES):  # one call, but for many receipts of as many sessions
            remember(self._home, await self._confirmed(trees[start : start + MAX_TREES]))

    async def _confirmed(self, trees: Sequence[Checkpoint]) -> VerifiedHead:
        """Return a head that RM and CM cosigned, and that leads on from these trees.

        An older one proves nothing of what came after it: of a log that parts from theirs only then.
        """
        answer = await self._ask(GetArchiveHeadRequest(tree_sizes=[tree.size for tree in trees]))
        for role in FOLLOWERS:
            cosignature_verifier(self._home, role).verify(answer.checkpoint)
        head = self._verification.verify_head(answer.checkpoint)
        if len(answer.links) != len(trees):
            raise _private(_FOLLOWED)
        for tree, link in zip(trees, answer.links, strict=True):
            if tree.size > head.checkpoint.size or not _leads_on(tree, head.checkpoint, link.proof):
                raise _private(_FOLLOWED)
        return head

    async def _ask(self, request: GetArchiveHeadRequest) -> GetArchiveHeadResponse:
        try:
            return await call(self._stub.GetArchiveHead, request, timeout=TIMEOUT)
        except KeyarkError as error:
            if error.kind not in _REFUSALS:
                raise
            raise _private(f"{_FOLLOWED} ({error.message})") from error


def _is_silent(error: KeyarkError) -> bool:
    """Whether a witness said nothing of the heads: it is away, or this identity may not ask."""
    return error.kind.is_transient or error.kind is Kind.DENIED


def _newest(heads: Sequence[VerifiedHead]) -> VerifiedHead:
    return max(heads, key=lambda head: head.checkpoint.size)


def _gravest(refusals: Collection[KeyarkError]) -> KeyarkError:
    """Return what to tell of several refusals: a private log or an alarm first, and who was away last."""
    grave = (error for error in refusals if error.reason in (PrivateLogError.reason, _ALARM))
    known = (error for error in refusals if not _is_silent(error))
    return next(grave, None) or next(known, None) or next(iter(refusals))


def _leads_on(first: Checkpoint, second: Checkpoint, proof: Sequence[bytes]) -> bool:
    """Whether the first tree is a prefix of the second; what is not, is told to the witnesses before it is refused."""
    try:
        second.check_extends(first, proof)
    except ConsistencyProofError:
        return False
    return True


def _link(one: Checkpoint, other: Checkpoint, proof: Sequence[bytes]) -> audit_pb2.CheckpointLink:
    first, second = sorted((one, other), key=lambda checkpoint: checkpoint.size)
    return audit_pb2.CheckpointLink(
        first_size=first.size, second_size=second.size, second_root=second.root, proof=proof
    )


def _moving(follower: Session) -> UnavailableError:
    return UnavailableError(
        f"The {follower.role.upper()} did not cosign the DRM's newest checkpoint in time; try again."
    )


def _private(whose: str) -> PrivateLogError:
    return PrivateLogError(
        f"The DRM shows a log that is inconsistent with what {whose}. Approve nothing, keep a copy of "
        "this home, and have the operators examine all three logs with `keyark doctor`."
    )
