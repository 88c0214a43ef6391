"""`keyark audit log`: an auditor sees who did what, each entry with its proof, and never key material."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.cli.auditors.audit_log import pop_filter
from keyark.client import (
    EnrollmentClient,
    KeyarkError,
    PendingApprovalError,
    open_session,
)
from keyark.client.access.home import Home
from keyark.client.administration.revocation import (
    hold_certificates,
    release_certificates,
    revoke_certificates,
)
from keyark.client.audit.log_entries import EntryFilter, PersonTrail, ReadEntry, rfc3339
from keyark.client.audit.log_reading import LogPositions, LogReading
from keyark.client.trust.receipts import LogMismatchError
from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import InvalidInputError, PolicyRejectedError
from keyark.errors.commands import UsageError
from keyark.keys.private_keys import load_private_key
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.store import WriteTransaction
from keyark.transparency._rows import DETAILS, LEAVES
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.events import new_event, parse_logged_event
from keyark.transparency.log import row_key
from keyark.transparency.receipts import parse_proof
from keyark.v1.audit_pb2 import (
    AuditDetails,
    AuditEvent,
    GetInclusionProofRequest,
    ListEntriesRequest,
    LogEntry,
)
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.certificates import encode_certificate
from tests.support.running.deployment import Deployment, copy_deployment, edit, running
from tests.support.running.processes import KEYARK, keyark
from tests.support.stories.enrolling import pkcs8
from tests.support.stories.queue import defer, officer_of
from tests.support.stories.recovering import REASON, agents, approve, link
from tests.support.stories.relays import lying_log, service_identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUPERSEDED = RevocationReason.REVOCATION_REASON_SUPERSEDED
FIELDS = [
    "schema",
    "log",
    "index",
    "time",
    "type",
    "proof",
    "leaf_hash",
    "enrollment_id",
    "statement_sha256",
    "signing_spki_sha256",
    "encryption_spki_sha256",
    "storage_key_id",
    "transport_key_id",
    "ceremony_id",
    "ceremony_digest",
    "receipt_leaf_hash",
    "share_recipient_sha256",
    "decision_sha256",
    "policy_sha256",
    "opening_facts_sha256",
    "details_sha256",
    "serials",
    "certificate_sha256",
    "expires_time",
    "details_state",
    "details",
    "page_token",
]
DETAIL_FIELDS = [
    "caller",
    "on_behalf_of",
    "claimed_client",
    "common_name",
    "email",
    "profile",
    "reason",
    "message",
    "method",
    "match_proof",
    "count",
    "invalidity_time",
    "asked_by_holder",
    "decision",
    "ceremony",
]


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happened, and the secrets of it."""

    deployment: Deployment
    serial: bytes
    secrets: list[bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Staff enrolls, a guest is approved, a key is recovered, a certificate revoked, and somebody is refused."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("log") / "deployment")
    async with running(defer(folder)) as deployment:
        secrets = []
        async with EnrollmentClient.open(deployment.home()) as client:
            for name in ("Alice", "Bob"):
                prepared = await client.prepare(
                    common_name=f"Staff {name}", email=f"{name.lower()}@example.org"
                )
                enrolled = await client.submit(prepared)
                certificate = encode_certificate(enrolled.encryption_certificate)
                await link(deployment, prepared.statement.enrollment_id, certificate)
                secrets += [pkcs8(prepared.encryption_key), pkcs8(prepared.signing_key)]
                if name == "Alice":
                    key_id = prepared.statement.encryption_spki_sha256
                    number = enrolled.signing_certificate.serial_number
            with pytest.raises(PendingApprovalError):
                await client.enroll(common_name="Guest Gina", email="gina@example.org")
            with pytest.raises(PolicyRejectedError):
                await client.enroll(common_name="Mallory", email="mallory@elsewhere.org")
        async with officer_of(deployment) as officer:
            await officer.approve([waiting async for waiting in officer.list()][-1])
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([key_id], reason=REASON)
            await approve(asked.ceremony_id, bob, carol)
            await alice.collect(asked.ceremony_id)
            await alice.acknowledge(asked.ceremony_id)
        serial = number.to_bytes((number.bit_length() + 7) // 8, "big")
        async with open_session(deployment.home(), "cm", identity="officer/officer") as session:
            await revoke_certificates(session, [serial], reason=SUPERSEDED)
        yield Story(deployment=deployment, serial=serial, secrets=secrets)


def reading_of(home: Home, token: str = "") -> AbstractAsyncContextManager[LogReading]:
    """Be an auditor who reads the logs."""
    return LogReading.open(home, page_token=token, retries=NO_RETRIES)


async def read(story: Story, token: str = "") -> list[ReadEntry]:
    """All entries that there are now."""
    async with reading_of(story.deployment.home(), token) as reading:
        entries = [entry async for entry in reading.entries()]
        reading.check()
        return entries


async def run(story: Story, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`keyark audit log` while the deployment runs on this event loop."""
    return await asyncio.to_thread(
        keyark, "audit", "log", "--home", story.deployment.folder, *words, code=code
    )


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_an_auditor_sees_who_did_what_and_all_of_it_proven(story: Story) -> None:
    entries = json_lines((await run(story, "--json-lines")).stdout)
    assert {entry["log"] for entry in entries} == {"rm", "cm", "drm"}
    assert {entry["proof"]["state"] for entry in entries} == {"proven"}
    assert {entry["details_state"] for entry in entries} == {"shown"}
    path = "spiffe://example.org/"

    def told(kind: str) -> list[dict[str, Any]]:
        return [entry["details"] for entry in entries if entry["type"] == kind]

    assert {d["caller"] for d in told("PAIR_ISSUED")} == {f"{path}client/enroller"}
    assert [d["decision"]["by"] for d in told("ENROLLMENT_APPROVED")] == [f"{path}officer/officer"]
    assert [d["caller"] for d in told("CERTIFICATE_REVOKED")] == [f"{path}officer/officer"]
    opened = told("RECOVERY_OPENED")[0]["ceremony"]
    assert (opened["type"], opened["requester"], opened["reason"]) == (
        "RECOVER_KEYS",
        f"{path}agent/alice",
        REASON,
    )
    approvals = [(d["decision"]["by"], d["decision"]["decision"]) for d in told("RECOVERY_APPROVED")]
    assert approvals == [(f"{path}agent/bob", "APPROVE"), (f"{path}agent/carol", "APPROVE")]
    assert [d["caller"] for d in told("KEYS_DELIVERED")] == [f"{path}agent/alice"]
    assert [d["caller"] for d in told("REQUEST_REJECTED")] == [f"{path}client/enroller"]
    policies = [entry["policy_sha256"] for entry in entries if entry["type"] == "POLICY_IN_FORCE"]
    assert len(policies) == 3
    assert all(len(digest) == 64 for digest in policies)


async def test_each_line_has_the_same_fields(story: Story) -> None:
    lines = (await run(story, "--json-lines")).stdout
    for entry in json_lines(lines):
        assert list(entry) == FIELDS
        assert list(entry["details"]) == DETAIL_FIELDS
        assert set(entry["proof"]) == {"state", "reason", "tree_size", "root"}
        assert set(entry["details"]["decision"]) == {
            "by", "decision", "reason", "common_name", "validity_days",
        }  # fmt: skip
        assert set(entry["details"]["ceremony"]) == {
            "type", "requester", "reason", "key_ids", "agents", "quorum",
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["time"])
        assert entry["schema"] == 1
    array = json.loads((await run(story, "--json", "--limit", 3)).stdout)
    assert array == json_lines(lines)[:3]


def secrets_of(story: Story) -> Iterator[tuple[str, bytes]]:
    """Every private key of the deployment and of its people, DER."""
    yield from ((f"user key {number}", key) for number, key in enumerate(story.secrets))
    folder = story.deployment.folder
    for path in sorted(folder.rglob("*.pem")):
        if b"PRIVATE KEY-----" in path.read_bytes():
            try:
                key: Any = load_private_key(path)
            except KeyarkError:
                key = load_private_key_by_uri(f"file:{path.name}", path.parent)
            der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            yield str(path.relative_to(folder)), der


async def test_no_output_holds_key_material(story: Story) -> None:
    """P10: every private key of the deployment, whole and in part, in each way of writing it down."""
    shown = "".join([(await run(story, *form)).stdout for form in (("--json-lines",), ())])
    secrets = dict(secrets_of(story))
    assert len(secrets) > 15
    for name, der in secrets.items():
        middle = der[36:60]  # of the private value, where all types of keys have it
        for part in (der, middle):
            assert part.hex() not in shown, name
            assert base64.b64encode(part).decode().rstrip("=")[:-1] not in shown, name
    assert "PRIVATE" not in shown


async def test_entries_are_merged_by_time_and_each_log_keeps_its_order(story: Story) -> None:
    entries = await read(story)
    for one, following in itertools.pairwise(entries):
        assert one.time_us <= following.time_us or one.log == following.log
    for role in ("rm", "cm", "drm"):
        indices = [entry.index for entry in entries if entry.log == role]
        assert indices == list(range(len(indices)))


async def found(story: Story, **wanted: Any) -> list[ReadEntry]:
    return [entry for entry in await read(story) if EntryFilter(**wanted).fits(entry)]


async def test_entries_are_found_by_type_person_caller_officer_agent_certificate_and_time(
    story: Story,
) -> None:
    assert {entry.type for entry in await found(story, types=["PAIR_ISSUED"])} == {"PAIR_ISSUED"}
    by_officer = {entry.type for entry in await found(story, officer="officer/officer")}
    assert {"ENROLLMENT_APPROVED", "CERTIFICATE_REVOKED"} <= by_officer
    assert "KEYS_RECOVERED" not in by_officer
    assert {entry.type for entry in await found(story, agent="agent/carol")} == {"RECOVERY_APPROVED"}
    assert "PAIR_ISSUED" in {entry.type for entry in await found(story, caller="client/enroller")}
    about = {entry.type for entry in await found(story, certificate=story.serial)}
    assert {"PAIR_ISSUED", "CERTIFICATE_REVOKED", "SERIALS_RESERVED"} <= about
    assert await found(story, caller="client/nobody") == []
    entries = await read(story)
    middle = entries[len(entries) // 2].time_us
    before, after = await found(story, until=middle), await found(story, since=middle)
    assert all(entry.time_us < middle for entry in before)
    assert all(entry.time_us >= middle for entry in after)
    assert len(before) + len(after) == len(entries)
    assert before
    assert after


async def test_what_became_of_a_persons_key_is_found_by_the_person(story: Story) -> None:
    trails = {
        name: [e for e in await read(story) if trail.is_about(e)]
        for name, trail in (
            (n, PersonTrail(person=n)) for n in ("ALICE@example.org", "staff bob", "gina@example.org")
        )
    }
    alice = {entry.type for entry in trails["ALICE@example.org"]}
    assert {"KEY_ARCHIVED", "KEY_CERTIFIED", "PAIR_ISSUED", "CERTIFICATE_REVOKED"} <= alice
    assert {"RECOVERY_OPENED", "RECOVERY_APPROVED", "KEYS_RECOVERED", "KEYS_DELIVERED"} <= alice
    bob = {entry.type for entry in trails["staff bob"]}
    assert "KEY_CERTIFIED" in bob
    assert not {"RECOVERY_OPENED", "KEYS_RECOVERED", "CERTIFICATE_REVOKED"} & bob
    assert {"ENROLLMENT_DEFERRED", "ENROLLMENT_APPROVED"} <= {e.type for e in trails["gina@example.org"]}


async def test_the_command_finds_and_goes_on_from_a_page_token(story: Story) -> None:
    words = ("--person", "alice@example.org", "--agent", "bob", "--type", "recovery_approved")
    line = (await run(story, *words)).stdout.splitlines()
    assert len(line) == 1
    assert re.search(r"drm \d+  proven  RECOVERY_APPROVED  by spiffe://example.org/agent/bob", line[0])
    everything = json_lines((await run(story, "--json-lines")).stdout)
    first = await run(story, "--json-lines", "--limit", 7)
    token = re.search(r"--page-token (\S+)", first.stderr)[1]
    rest = await run(story, "--json-lines", "--page-token", token)
    assert json_lines(first.stdout) + json_lines(rest.stdout) == everything
    assert (await run(story, "--json-lines", "--page-token", everything[-1]["page_token"])).stdout == ""


async def test_a_persons_entries_go_on_from_a_page_token_with_what_was_known_before(story: Story) -> None:
    words = ("--person", "alice@example.org", "--json-lines")
    everything = json_lines((await run(story, *words)).stdout)
    kinds = [entry["type"] for entry in everything]
    before = kinds.index("KEYS_RECOVERED")  # which names no person
    rest = await run(story, *words, "--page-token", everything[before - 1]["page_token"])
    assert json_lines(rest.stdout) == everything[before:]


async def test_a_reading_goes_on_from_every_place(story: Story) -> None:
    entries = await read(story)
    positions = LogPositions()
    for number in range(0, len(entries), 5):
        for entry in entries[max(0, number - 5) : number]:
            positions = positions.after(entry)
        assert [e.leaf for e in await read(story, str(positions))] == [e.leaf for e in entries[number:]]


@pytest.mark.parametrize(
    "token", ["", "rm:1", "rm:1,cm:2,drm:x", "rm:01,cm:2,drm:3", "rm:-1,cm:2,drm:3", "a" * 99]
)
async def test_what_is_no_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInputError):
        LogPositions.parse(token)


async def test_a_token_beyond_the_log_tells_that_entries_are_gone(story: Story) -> None:
    async with reading_of(story.deployment.home(), "rm:100000,cm:0,drm:0") as reading:
        assert {entry.log async for entry in reading.entries()} == {"cm", "drm"}
        with pytest.raises(LogMismatchError, match="page token"):
            reading.check()


@pytest.mark.parametrize("identity", ["agent/alice", "officer/officer", "client/enroller"])
async def test_nobody_but_an_auditor_reads_the_log(story: Story, identity: str) -> None:
    refused = await run(story, "--as", identity, code=1)
    assert "PERMISSION_DENIED" in refused.stderr
    assert refused.stdout == ""


@asynccontextmanager
async def altered(
    story: Story, role: str, table: str, index: int, change: Callable[[bytes], bytes | None]
) -> AsyncIterator[None]:
    """Alter a row of a log below its service, for a while; None deletes it."""
    store, key = story.deployment.services[role].policy.store, row_key(index)
    before = store.read(lambda txn: txn.get(table, key))
    assert before is not None

    def put(value: bytes | None) -> Callable[[WriteTransaction], None]:
        return lambda txn: txn.delete(table, key) if value is None else txn.put(table, key, value)

    await store.update(put(change(before)))
    try:
        yield
    finally:
        await store.update(put(before))


def flipped(row: bytes) -> bytes:
    return row[:-1] + bytes([row[-1] ^ 1])


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
@pytest.mark.parametrize(
    ("table", "reasons"),
    [(DETAILS, {"AUDIT_EVENT_INVALID"}), (LEAVES, {"LOG_MISMATCH", "AUDIT_EVENT_INVALID"})],
)
async def test_a_tampered_entry_is_refused_and_the_other_logs_are_read(
    story: Story, role: str, table: str, reasons: set[str]
) -> None:
    async with altered(story, role, table, 2, flipped), reading_of(story.deployment.home()) as reading:
        logs = {entry.log async for entry in reading.entries()}
        assert logs == {"rm", "cm", "drm"} - {role}
        with pytest.raises(KeyarkError) as refused:
            reading.check()
        assert refused.value.reason in reasons


async def test_a_replaced_entry_is_refused_wherever_reading_begins(story: Story) -> None:
    """A leaf that parses, with details that fit it, and is not the one that was signed."""
    store = story.deployment.services["cm"].policy.store
    rows = store.read(
        lambda txn: [(txn.get(LEAVES, row_key(i)), txn.get(DETAILS, row_key(i))) for i in (4, 6)]
    )
    leaf, details = rows[1]
    async with (
        altered(story, "cm", LEAVES, 4, lambda _: leaf),  # both complete one subtree only
        altered(story, "cm", DETAILS, 4, lambda _: details),
    ):
        for token in ("rm:0,cm:0,drm:0", "rm:0,cm:3,drm:0", "rm:0,cm:4,drm:0"):
            async with reading_of(story.deployment.home(), token) as reading:
                assert "cm" not in {entry.log async for entry in reading.entries()}
                with pytest.raises(LogMismatchError):
                    reading.check()
        told = await run(story, code=1)
        assert "LOG_MISMATCH" in told.stderr
        assert "  cm " not in told.stdout


async def test_erased_details_are_told_and_what_may_be_missing_too(story: Story) -> None:
    index = next(e.index for e in await read(story) if e.type == "KEY_ARCHIVED")
    async with altered(story, "drm", DETAILS, index, lambda _: None):
        entry = next(e for e in await read(story) if (e.log, e.index) == ("drm", index))
        assert (entry.details_state, entry.proof.state) == ("erased", "proven")
        assert entry.facts()["details"]["email"] == ""
        told = await run(story, "--person", "alice@example.org")
        assert "1 entries have no details" in told.stderr
        assert "details erased" in (await run(story, "--type", "KEY_ARCHIVED")).stdout


async def test_policy_withholds_details_and_the_entry_stays_proven(story: Story) -> None:
    path, policy = story.deployment.folder / "drm" / "drm.toml", story.deployment.services["drm"].policy
    before = path.read_text()
    edit(path, 'events = ["*"]', 'events = ["KEYS_DELIVERED"]')
    await policy.reload()
    try:
        entries = [entry for entry in await read(story) if entry.log == "drm"]
        assert {entry.proof.state for entry in entries} == {"proven"}
        shown = {entry.type for entry in entries if entry.details_state == "shown"}
        assert shown == {"KEYS_DELIVERED"}
        assert {e.details_state for e in entries if e.type == "KEY_ARCHIVED"} == {"withheld"}
        lines = (await run(story, "--json-lines")).stdout
        drm = "\n".join(line for line in lines.splitlines() if '"log":"drm"' in line)
        assert REASON not in drm
        assert "alice@example.org" not in drm
    finally:
        path.write_text(before)
        await policy.reload()


async def test_services_that_follow_the_archives_log_see_its_leaves_alone(story: Story) -> None:
    """A hostile RM learns from no log whose keys came back, and why."""
    deployment = story.deployment
    for role in ("rm", "cm"):
        channel = open_channel(
            deployment.home().config.drm,
            service_identity(deployment.folder, role),
            server_role="drm",
            trust_domain="example.org",
        )
        async with channel:
            stub = AuditServiceStub(channel)
            listed = await call(stub.ListEntries, ListEntriesRequest(), timeout=30)
            assert len(listed.entries) > 5
            for entry in listed.entries:
                assert (entry.event.salt, entry.event.details, entry.details_withheld) == (b"", b"", True)
            proven = await call(stub.GetInclusionProof, GetInclusionProofRequest(index=5), timeout=30)
            told = parse_logged_event(parse_proof(proven.proof).extra)
            assert (told.salt, told.details, proven.details_withheld) == (b"", b"", True)


def renumbered(answer: Any) -> None:
    for number, entry in enumerate(answer.entries, start=answer.entries[0].index):
        entry.index = number


def without_one(answer: Any) -> None:
    del answer.entries[2]


def hiding_one(answer: Any) -> None:
    del answer.entries[2]
    renumbered(answer)


def with_two_exchanged(answer: Any) -> None:
    first = LogEntry.FromString(answer.entries[1].SerializeToString())
    answer.entries[1].CopyFrom(answer.entries[2])
    answer.entries[2].CopyFrom(first)
    renumbered(answer)


def with_one_made_up(answer: Any) -> None:
    event = AuditEvent.FromString(answer.entries[1].event.leaf)
    answer.entries[1].event.CopyFrom(new_event(event, AuditDetails(caller="spiffe://example.org/agent/bob")))


def with_nothing(answer: Any) -> None:
    answer.ClearField("entries")
    answer.next_page_token = "1"


def with_what_does_not_parse(answer: Any) -> None:
    event = AuditEvent.FromString(answer.entries[1].event.leaf)
    answer.entries[1].event.CopyFrom(new_event(event, AuditDetails(decision=b"\xff")))


LIES = [
    without_one, hiding_one, with_two_exchanged, with_one_made_up, with_nothing, with_what_does_not_parse,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("start", ["", "rm:0,cm:1,drm:0"])
async def test_whatever_a_hostile_service_shows_in_place_of_its_log_is_refused(
    story: Story, lie: Callable[[Any], None], start: str
) -> None:
    def alter(method: str, request: Any, answer: Any) -> Any:
        if method == "ListEntries":
            lie(answer)
        return answer

    async with lying_log(story.deployment, "cm", alter) as home, reading_of(home, start) as reading:
        assert {entry.log async for entry in reading.entries()} == {"rm", "drm"}
        with pytest.raises(KeyarkError) as refused:
            reading.check()
        assert refused.value.reason in {"LOG_MISMATCH", "AUDIT_EVENT_INVALID"}


@pytest.mark.parametrize("proof", [b"", b"no proof"])
async def test_a_hostile_service_cannot_choose_where_reading_goes_on(story: Story, proof: bytes) -> None:
    def alter(method: str, request: Any, answer: Any) -> Any:
        if method == "GetInclusionProof":
            lines = answer.proof.split(b"\n")
            lines[3] = base64.b64encode(bytes(32))  # the sibling of the leaf, to its left
            answer.proof = proof or b"\n".join(lines)
        return answer

    async with (
        lying_log(story.deployment, "cm", alter) as home,
        reading_of(home, "rm:0,cm:1,drm:0") as reading,
    ):
        assert {entry.log async for entry in reading.entries()} == {"rm", "drm"}
        with pytest.raises(LogMismatchError):
            reading.check()


def beside(story: Story, folder: Path, *roles: str) -> Home:
    """An auditor's home of its own that finds nobody at the addresses of these services."""
    shutil.copytree(story.deployment.folder, folder, ignore=shutil.ignore_patterns("store"))
    text = (folder / "keyark.toml").read_text()
    for role in roles:
        text = re.sub(rf'^{role} = ".*"$', f'{role} = "127.0.0.1:1"', text, flags=re.MULTILINE)
    (folder / "keyark.toml").write_text(text)
    return Home.load(folder)


async def test_without_a_witness_the_archives_entries_are_unproven_and_say_why(
    story: Story, tmp_path: Path
) -> None:
    home = beside(story, tmp_path / "home", "cm")
    async with reading_of(home) as reading:
        entries = [entry async for entry in reading.entries()]
        assert {(entry.log, entry.proof.state) for entry in entries} == {
            ("rm", "proven"),
            ("drm", "unproven"),
        }
        assert {e.facts()["proof"]["reason"] for e in entries if e.log == "drm"} == {reading.unproven}
        assert "the CM did not confirm it" in reading.unproven
        assert reading.failures["cm"].reason == "NO_CONNECTION"
    told = await asyncio.to_thread(keyark, "audit", "log", "--home", home.folder, code=1)
    assert "unproven    the drm log: the CM did not confirm it" in told.stderr


@pytest.mark.parametrize(
    ("role", "reason"), [("rm", "LOG_MISMATCH"), ("cm", "LOG_MISMATCH"), ("drm", "PRIVATE_LOG")]
)
async def test_a_log_that_contradicts_what_the_home_saw_is_refused(
    story: Story, tmp_path: Path, role: str, reason: str
) -> None:
    home = beside(story, tmp_path / "home")
    key = "drm/transport-keys/1/key.pem" if role == "drm" else f"{role}/log-key.pem"
    signer = NoteSigner.from_private_key(
        f"example.org/{role}", load_private_key(story.deployment.folder / key)
    )
    (home.folder / "checkpoints").mkdir(mode=0o700, exist_ok=True)
    seen = signer.sign(Checkpoint(f"example.org/{role}", 3, bytes(32)))
    (home.folder / "checkpoints" / f"{role}.note").write_bytes(seen)
    async with reading_of(home) as reading:
        assert role not in {entry.log async for entry in reading.entries()}
        with pytest.raises(KeyarkError) as refused:
            reading.check()
    assert refused.value.reason == reason


class EnoughError(Exception):
    """The test has seen what it waited for."""


async def test_following_shows_what_is_logged_later_once(story: Story) -> None:
    seen: list[ReadEntry] = []
    looks = 0

    async def pause() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise EnoughError
        async with open_session(story.deployment.home(), "cm", identity="officer/officer") as session:
            change = hold_certificates if looks == 1 else release_certificates
            serial = next(e.opened.event.serials[0] for e in reversed(seen) if e.type == "PAIR_ISSUED")
            await change(session, [serial])

    async with reading_of(story.deployment.home()) as reading:
        with pytest.raises(EnoughError):
            async for entry in reading.follow(pause):
                seen.append(entry)  # noqa: PERF401 — ``pause`` looks at it meanwhile
    assert [entry.type for entry in seen[-2:]] == ["CERTIFICATE_HELD", "CERTIFICATE_RELEASED"]
    assert len({(entry.log, entry.index) for entry in seen}) == len(seen)
    assert {entry.proof.state for entry in seen} == {"proven"}


def heeding_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_ends_following(story: Story) -> None:
    words = ["audit", "log", "--follow", "--json-lines", "--home", str(story.deployment.folder)]
    entries = len(await read(story))

    def follow() -> tuple[str, str, int]:
        process = subprocess.Popen(
            [*KEYARK, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heeding_sigint,  # noqa: PLW1509 — no other thread of the tests holds a lock that it needs
        )
        lines = "".join(process.stdout.readline() for _ in range(entries))
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=60)
        return lines + rest, told, process.returncode

    lines, told, code = await asyncio.to_thread(follow)
    assert code == 130
    assert "[STOPPED]" in told
    assert "Traceback" not in told
    assert len(json_lines(lines)) == entries


def options(**given: Any) -> dict[str, Any]:
    names = ("person", "caller", "officer", "agent", "certificate")
    return {"types": (), "since": None, "until": None, **dict.fromkeys(names, ""), **given}


async def test_filters_are_read_as_people_write_them() -> None:
    taken = pop_filter(
        options(
            officer="olga",
            agent="agent/bob",
            caller="spiffe://example.org/client/x",
            certificate="00:AB:cd",
            since="2026-11-30",
            until="2026-11-30T01:00:00+01:00",
        )
    )
    assert (taken.officer, taken.agent, taken.caller) == ("officer/olga", "agent/bob", "client/x")
    assert taken.certificate == b"\xab\xcd"
    assert taken.since == taken.until == 1_795_996_800_000_000
    with pytest.raises(UsageError, match="not a time"):
        pop_filter(options(since="yesterday"))
    with pytest.raises(UsageError, match="hexadecimal"):
        pop_filter(options(certificate="xyz"))


@pytest.mark.parametrize(
    "words", [("--json", "--follow"), ("--json", "--json-lines"), ("--type", "KEY_LOST")]
)
async def test_options_that_do_not_fit_are_usage_errors(story: Story, words: tuple[str, ...]) -> None:
    await run(story, *words, code=2)


@pytest.mark.parametrize("time_us", [2**63 - 1, -(2**63), 10**18])
async def test_a_time_that_no_calendar_has_is_shown_as_it_is(time_us: int) -> None:
    assert rfc3339(time_us) == str(time_us)
