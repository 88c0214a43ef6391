"""Reading the three logs as one: each entry is verified under the head of its log before it is told.

Pages are verified one by one, so memory stays bounded however large a log is: what was read so far makes the tree of
its size, which the service proves to be a prefix of the tree of the signed head::

    async with LogReading.open("deployment", identity="auditor/ann") as reading:
        async for entry in reading.entries():
            print(entry.time_us, entry.log, entry.type, entry.proof.state)
        reading.check()
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource, no_password
from keyark.client.access.sessions import Session
from keyark.client.audit.log_entries import ERASED, SHOWN, WITHHELD, Proof, ReadEntry
from keyark.client.audit.log_heads import follow_head
from keyark.client.trust.receipts import LogMismatchError
from keyark.client.trust.witnesses import Witnesses
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries
from keyark.transparency.checkpoint import Checkpoint, CheckpointError, VerifiedHead, parse_checkpoint
from keyark.transparency.events import EventError, open_event
from keyark.transparency.merkle import (
    ConsistencyProofError,
    InclusionProofError,
    TreeHasher,
    verify_consistency,
)
from keyark.transparency.receipts import ReceiptFormatError, parse_proof
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.common_pb2 import PageRequest

LOGS: Final = SERVICE_ROLES
TIMEOUT: Final = 30.0
PAGE: Final = 500
AWAY: Final = (Kind.UNAVAILABLE, Kind.DEADLINE, Kind.EXHAUSTED)
_REFUSALS: Final = (Kind.PRECONDITION, Kind.INVALID, Kind.CONFLICT, Kind.NOT_FOUND)
MAX_TOKEN: Final = 80


@dataclass(frozen=True)
class LogPositions:
    """How many entries of each log were read; as text, a page token: "rm:12,cm:40,drm:7"."""

    of: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(LOGS, 0))

    @classmethod
    def parse(cls, token: str) -> LogPositions:
        """Read a page token; raises InvalidInputError."""
        parts = dict(part.partition(":")[::2] for part in token.split(",")) if len(token) < MAX_TOKEN else {}
        numbers = {role: int(value) for role, value in parts.items() if value.isascii() and value.isdigit()}
        read = cls({role: numbers.get(role, 0) for role in LOGS})
        if str(read) != token:
            raise InvalidInputError(
                "The page token does not come from this command; give one that it printed, such as "
                "rm:12,cm:40,drm:7.",
                field="page_token",
            )
        return read

    def after(self, entry: ReadEntry) -> LogPositions:
        """Return the positions after an entry was read."""
        return LogPositions({**self.of, entry.log: entry.index + 1})

    def furthest(self, other: LogPositions) -> LogPositions:
        """Return, for each log, the further of two positions."""
        return LogPositions({role: max(self.of[role], other.of[role]) for role in LOGS})

    def __str__(self) -> str:
        return ",".join(f"{role}:{self.of[role]}" for role in LOGS)


@dataclass(kw_only=True)
class LogReading:
    """The logs of the three services, read from ``positions`` on, as an auditor.

    If one log fails, the others are still read: ``failures`` has the error, and ``check`` raises it.
    """

    witnesses: Witnesses
    positions: LogPositions = field(default_factory=LogPositions)
    failures: dict[str, KeyarkError] = field(default_factory=dict)
    unproven: str = ""
    """Why the DRM's log is not proven to be the one that everybody sees; empty where RM and CM confirm it."""
    _trees: dict[str, TreeHasher] = field(default_factory=dict)
    _confirmed: Checkpoint | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        home: Path | str | Home,
        *,
        identity: str = "auditor/auditor",
        password: PasswordSource = no_password,
        page_token: str = "",
        retries: Retries = DEFAULT_RETRIES,
    ) -> AsyncIterator[Self]:
        """Open channels to the three services, to read from a page token on (empty: from the beginning).

        ``retries`` repeats calls, and ``password`` is called if the identity's key is encrypted. Raises
        ConfigurationError, and InvalidInputError for a malformed page token.
        """
        opened = home if isinstance(home, Home) else Home.load(home)
        positions = LogPositions.parse(page_token) if page_token else LogPositions()
        async with Witnesses.open(opened, identity=identity, password=password, retries=retries) as witnesses:
            yield cls(witnesses=witnesses, positions=positions)

    async def entries(self) -> AsyncIterator[ReadEntry]:
        """Yield the entries after ``positions``, merged by time; each log keeps its order.

        ``positions`` advances with each entry. Entries that are logged meanwhile come with the next call.
        """
        self.failures.clear()
        streams = {session.role: self._entries_of(session) for session in self._sessions}
        waiting: dict[str, ReadEntry] = {}
        try:
            for role in streams:
                await self._advance(role, streams, waiting)
            while waiting:
                role = min(waiting, key=lambda role: (waiting[role].time_us, LOGS.index(role)))
                entry = waiting.pop(role)
                self.positions = self.positions.after(entry)
                yield entry
                await self._advance(role, streams, waiting)
        finally:
            for stream in streams.values():
                await stream.aclose()

    async def follow(self, pause: Callable[[], Awaitable[None]]) -> AsyncIterator[ReadEntry]:
        """Yield entries for ever, merged by time for each poll; ``pause`` waits between two polls.

        If a service is down, its log is read further when the service is back. Raises any other failure of a
        log.
        """
        while True:
            async for entry in self.entries():
                yield entry
            for failure in self.failures.values():
                if failure.kind not in AWAY:
                    raise failure
            await pause()

    def check(self) -> None:
        """Raise the failure of a log, if there is one; the worst first, a service that did not answer last."""
        if failures := sorted(self.failures.values(), key=lambda failure: failure.kind in AWAY):
            raise failures[0]

    @property
    def _sessions(self) -> tuple[Session, ...]:
        return (*self.witnesses.followers, self.witnesses.archive)

    async def _advance(
        self, role: str, streams: Mapping[str, AsyncIterator[ReadEntry]], waiting: dict[str, ReadEntry]
    ) -> None:
        """Have the next entry of a log wait, if there is one."""
        try:
            waiting[role] = await anext(streams[role])
        except StopAsyncIteration:
            return
        except KeyarkError as failure:
            self.failures[role] = failure

    async def _entries_of(self, session: Session) -> AsyncGenerator[ReadEntry]:
        head = await follow_head(session)
        if session.role == "drm":
            await self._confirm(head)
        proof = Proof(
            tree_size=head.checkpoint.size,
            root=head.checkpoint.root,
            unproven=self.unproven if session.role == "drm" else "",
        )
        pages = _LogPages(session=session, proof=proof)
        position = self.positions.of[session.role]
        if position == proof.tree_size:
            return
        tree = self._trees.pop(session.role, None)
        if tree is None or tree.size != position:
            tree = await pages.tree_before(position)
        while tree.size < proof.tree_size:
            for entry in await pages.next_page(tree):
                yield entry
        self._trees[session.role] = tree

    async def _confirm(self, head: VerifiedHead) -> None:
        """Ask RM and CM whether they follow this head, unless they said so before; raises PrivateLogError."""
        if head.checkpoint == self._confirmed:
            return
        silent = await self.witnesses.confirm_where_possible([head])
        self.unproven = "; ".join(
            f"the {role.upper()} did not confirm it: {why}" for role, why in silent.items()
        )
        self._confirmed = None if silent else head.checkpoint


@dataclass(frozen=True, kw_only=True)
class _LogPages:
    """The entries of one log, each page proven to be under the head that ``proof`` names."""

    session: Session
    proof: Proof

    async def tree_before(self, index: int) -> TreeHasher:
        """Return the tree of the entries before one, as the service tells it; the next page shows whether it lied."""
        if index == 0:
            return TreeHasher()
        if index > self.proof.tree_size:
            raise LogMismatchError(
                f"The page token names entry {index} of the {self._log}, which has only "
                f"{self.proof.tree_size} entries. The token is from another deployment, or entries were "
                "removed: run `keyark audit verify`."
            )
        stub = AuditServiceStub(self.session.channel)
        request = audit_pb2.GetInclusionProofRequest(index=index)
        answer = await call(stub.GetInclusionProof, request, timeout=TIMEOUT)
        try:
            told = parse_proof(answer.proof)
            size = parse_checkpoint(told.checkpoint).size
            return TreeHasher.before(index, tree_size=size, proof=told.proof)
        except (ReceiptFormatError, CheckpointError, InclusionProofError) as failure:
            raise self._altered(failure.message) from None

    async def next_page(self, tree: TreeHasher) -> list[ReadEntry]:
        """Return the entries that follow a tree, and let it grow by them, once they are proven.

        Raises LogMismatchError, and EventError where details do not fit their leaf.
        """
        stub = AuditServiceStub(self.session.channel)
        size = min(PAGE, self.proof.tree_size - tree.size)
        page = PageRequest(page_size=size, page_token=str(tree.size))
        answer = await call(stub.ListEntries, audit_pb2.ListEntriesRequest(page=page), timeout=TIMEOUT)
        entries = []
        for told in answer.entries[:size]:
            entries.append(self._read(told, tree.size))
            tree.append(told.event.leaf)
        if not entries:
            raise self._altered(f"Entry {tree.size} is missing.")
        await self._prove(tree)
        return entries

    def _read(self, told: audit_pb2.LogEntry, index: int) -> ReadEntry:
        if told.index != index:
            raise self._altered(f"Entry {index} is missing.")
        try:
            opened = open_event(told.event)
        except EventError as failure:
            raise EventError(f"Entry {index} of the {self._log} is refused: {failure.message}") from None
        absent = WITHHELD if told.details_withheld else ERASED
        entry = ReadEntry(
            log=self.session.role,
            index=index,
            leaf=told.event.leaf,
            opened=opened,
            proof=self.proof,
            details_state=absent if opened.details is None else SHOWN,
        )
        entry.check()
        return entry

    async def _prove(self, tree: TreeHasher) -> None:
        """Raise LogMismatchError unless a tree is a prefix of that of the head."""
        try:
            verify_consistency(
                first_size=tree.size,
                second_size=self.proof.tree_size,
                first_root=tree.root(),
                second_root=self.proof.root,
                proof=await self._consistency(tree.size),
            )
        except ConsistencyProofError as failure:
            raise self._altered(failure.message) from None

    async def _consistency(self, size: int) -> Sequence[bytes]:
        """Ask for the proof from a tree to the head; a service that refuses it proves nothing."""
        if size == self.proof.tree_size:
            return []
        stub = AuditServiceStub(self.session.channel)
        request = audit_pb2.GetConsistencyProofRequest(first_size=size, second_size=self.proof.tree_size)
        try:
            return (await call(stub.GetConsistencyProof, request, timeout=TIMEOUT)).link.proof
        except KeyarkError as failure:
            if failure.kind not in _REFUSALS:
                raise
            return []

    def _altered(self, why: str) -> LogMismatchError:
        return LogMismatchError(
            f"The entries of the {self._log} do not match its signed checkpoint of {self.proof.tree_size} "
            f"entries: {why} An entry was altered, removed or added. Keep a copy, and tell the operators "
            "of all three services."
        )

    @property
    def _log(self) -> str:
        return f"{self.session.role} log"
