"""P10, a thief of the RM's disk or of its backups: no wrapped key of a request that is over, in whatever form."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from keyark.clock import ManualClock
from keyark.errors import PolicyRejectedError, Violation
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.statements.enrollment import Statement, parse_statement
from keyark.store import Store, open_store, row_keys_beside
from keyark.v1.audit_pb2 import AuditDetails, EventType
from keyark.v1.common_pb2 import ArchivalPolicy
from keyark.v1.registration_pb2 import EnrollmentForm, EnrollmentState
from rm_service.config import ApprovalSettings
from rm_service.enrollment.queue import ApprovalQueue
from rm_service.enrollment.steps import Enrollments
from rm_service.records import SCHEMA_VERSION, TABLES, WRAPPED_KEYS, read_enrollment
from rm_service.requests import EnrollmentRequest, approved_request
from rm_service.reviews import complete, wrapped_key
from tests.support.keys.pki import signed_statement
from tests.support.stories.transparency import new_log
from tests.support.stories.vanishing import found_values

ENVELOPES = [random.Random(size).randbytes(size) for size in (330, 1900)]
STATE = EnrollmentState


class Waiting:
    """A durable queue with a request in it."""

    def __init__(self, folder: Path, envelope: bytes) -> None:
        self.folder, self.envelope, self.clock = folder, envelope, ManualClock()
        raw, self.signature = signed_statement()
        self.statement: Statement = parse_statement(raw)
        self.id = self.statement.enrollment_id

    async def open(self) -> None:
        self.log = new_log(clock=self.clock)
        self.store: Store = open_store(
            self.folder, tables=TABLES, finisher=self.log.finisher, schema_version=SCHEMA_VERSION
        )
        await self.log.open(self.store)
        self.queue = ApprovalQueue(
            store=self.store, log=self.log, clock=self.clock, settings=ApprovalSettings()
        )

    async def defer(self) -> None:
        violation = Violation(rule="by-hand", subsystem="rm", message="wait")
        await self.queue.defer(
            self.statement,
            signature=self.signature,
            wrapped_key=self.envelope,
            call=None,
            deferrals=[violation],
        )

    async def end(self, state: EnrollmentState.ValueType) -> None:
        def change(record: EnrollmentRecord) -> None:
            record.state = state

        leaf = self.queue.leaf(
            EventType.EVENT_TYPE_ENROLLMENT_REJECTED, self.statement, AuditDetails(caller="jo")
        )
        await self.queue.change(self.id, change, leaf)

    def kept(self) -> bytes:
        return self.store.read(lambda txn: wrapped_key(txn, self.id))

    async def close(self) -> None:
        await self.log.close()
        await self.store.close()


async def rejected(waiting: Waiting) -> None:
    await waiting.end(STATE.ENROLLMENT_STATE_REJECTED)


async def canceled(waiting: Waiting) -> None:
    await waiting.end(STATE.ENROLLMENT_STATE_CANCELED)


async def expired(waiting: Waiting) -> None:
    waiting.clock.advance(8 * 86_400)
    await waiting.queue.expire_due()


async def refused_by_the_archive(waiting: Waiting) -> None:
    await waiting.end(STATE.ENROLLMENT_STATE_APPROVED)
    await waiting.queue.refuse(waiting.statement, PolicyRejectedError("no"))


async def issued(waiting: Waiting) -> None:
    await waiting.end(STATE.ENROLLMENT_STATE_APPROVED)
    record = EnrollmentRecord(statement=waiting.statement.raw, state=STATE.ENROLLMENT_STATE_ISSUED)
    await waiting.store.update(lambda txn: complete(txn, waiting.id, record))


@pytest.mark.parametrize("envelope", ENVELOPES, ids=["ec", "rsa"])
@pytest.mark.parametrize("end", [rejected, canceled, expired, refused_by_the_archive, issued])
async def test_the_wrapped_key_of_a_request_that_is_over_is_nowhere_in_the_folder(
    tmp_path: Path, end, envelope: bytes
) -> None:
    waiting = Waiting(tmp_path / "store", envelope)
    await waiting.open()
    await waiting.defer()
    assert waiting.kept() == envelope
    before = shutil.copytree(tmp_path / "store", tmp_path / "before")
    assert envelope in found_values(before, WRAPPED_KEYS)  # the thief would find it, while it waits
    assert all(envelope[:32] not in file.read_bytes() for file in before.iterdir())
    await end(waiting)
    after = shutil.copytree(tmp_path / "store", tmp_path / "after")
    assert envelope not in found_values(after, WRAPPED_KEYS, before)
    await waiting.close()


async def test_a_backup_leaves_it_out_and_the_restored_request_asks_for_it_again(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "store", ENVELOPES[0])
    await waiting.open()
    await waiting.defer()
    await waiting.store.backup(tmp_path / "backup")
    await waiting.close()
    assert not row_keys_beside(tmp_path / "backup").exists()
    assert ENVELOPES[0] not in found_values(tmp_path / "backup", WRAPPED_KEYS)
    waiting.folder = tmp_path / "backup"
    await waiting.open()
    assert waiting.kept() == b""
    await waiting.end(STATE.ENROLLMENT_STATE_APPROVED)
    record = waiting.store.read(lambda txn: read_enrollment(txn, waiting.id))
    request = approved_request(waiting.store, record)
    assert request.lacks_private_key
    for archival in (ArchivalPolicy.ARCHIVAL_POLICY_PERMITTED, ArchivalPolicy.ARCHIVAL_POLICY_REQUIRED):
        form = EnrollmentForm(archival=archival)
        asked = Enrollments.request_private_key(cast("Any", None), waiting.statement, request, form)
        assert asked.state == STATE.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
    newer = EnrollmentRequest(
        statement=waiting.statement.raw, signature=waiting.signature, wrapped_private_key=ENVELOPES[1]
    )
    assert not approved_request(waiting.store, record, newer=newer).lacks_private_key
    await waiting.close()
