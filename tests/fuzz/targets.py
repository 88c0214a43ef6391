"""Every parser of foreign input, with what a caller of it does next; each may raise KeyarkError and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from cm_service.config import CmConfig
from cm_service.public.documents import Caching, HttpRequest, HttpResponse, cached, plain
from cm_service.public.http import HttpLimits, HttpServer
from cm_service.public.web import _from_url
from drm_service.config import DrmConfig
from keyark.cli.auditors.audit_log import entry_line
from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordList
from keyark.client.access.transport_memory import _remembered
from keyark.client.audit.log_entries import SHOWN, Proof, ReadEntry
from keyark.client.audit.log_reading import LogPositions
from keyark.client.enrollment.user_list import read_users
from keyark.client.recovery.archive_pins import FILE as PINS
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.client.trust.receipts import verify_receipt_file
from keyark.config import load_config
from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.matching import prove_match
from keyark.custody.storage import HybridPrivateKey, HybridPublicKey
from keyark.custody.token import load_token
from keyark.custody.uris import load_private_key_by_uri
from keyark.deployment.access.authority import _load_request
from keyark.deployment.access.issued import IssuedIdentities
from keyark.errors import InvalidInputError, KeyarkError
from keyark.identity.bundles import Bundle
from keyark.identity.certificates import identity_of
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId, check_trust_domain
from keyark.identity.transport import TransportTrust, transport_spki
from keyark.keys.key_types import KeyType, key_type_of
from keyark.keys.known_keys import KnownKeys
from keyark.keys.password_files import read_password
from keyark.keys.pkcs8 import parse_private_key_info
from keyark.keys.private_keys import load_private_key
from keyark.keys.spki import encode_spki, load_spki
from keyark.policy.expressions import Condition
from keyark.policy.requests import sample_of
from keyark.policy.trial import load_requests
from keyark.records.v1.drm_pb2 import WorkFailure
from keyark.rpc.errors import error_from_status
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.guard import _decode
from keyark.service.control import Commands, _answer
from keyark.service.failures import unpack_failure
from keyark.service.paging import page_of
from keyark.statements.calls import SignedCall
from keyark.statements.ceremonies import Opening, verify_decision, verify_request
from keyark.statements.enrollment import parse_statement, verify_statement
from keyark.statements.pairs import check_encryption_certificate, check_signing_certificate
from keyark.statements.revocations import parse_revocation
from keyark.transparency.checkpoint import NoteVerifier, parse_checkpoint
from keyark.transparency.cosignatures import CosignatureVerifier
from keyark.transparency.events import EventError, new_event, open_event, parse_leaf, parse_logged_event
from keyark.transparency.merkle import TreeHasher, verify_consistency, verify_inclusion
from keyark.transparency.opening_facts import parse_facts
from keyark.transparency.receipts import ReceiptVerifier, parse_proof
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1 import archive_pb2, certificates_pb2, recovery_pb2, registration_pb2
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent, TransportKeyChange
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.common_pb2 import PageRequest, TransportCertificate
from keyark.workers.frames import read_frame, unpack
from keyark.x509.authority import check_request
from keyark.x509.certificates import Validity, load_certificate, load_pem_certificates
from keyark.x509.chains import lowest, verify_chain
from keyark.x509.names import check_email, check_name
from keyark.x509.ocsp import parse_ocsp_request
from keyark.x509.pkcs12 import open_pkcs12
from rm_service.config import RmConfig
from tests.fuzz.world import world

SEEDS = Path(__file__).with_name("seeds")


@dataclass(frozen=True)
class Target:
    """A parser: what is called with each input, and the inputs to begin with."""

    name: str
    parse: Callable[[bytes], object]

    def seeds(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((SEEDS / self.name).iterdir())]


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="keyark-fuzz-"))
    made.chmod(0o700)
    return made


def file(data: bytes, name: str = "input") -> Path:
    path = folder() / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def text(data: bytes) -> str:
    return data.decode(errors="replace")


def certificate(der: bytes) -> None:
    """What services do with a certificate that somebody sent."""
    loaded = load_certificate(der)
    w = world()
    for check in (
        lambda: identity_of(loaded),
        lambda: verify_chain(loaded, intermediates=[loaded], anchors=[w.internal], at=w.now),
        lambda: check_signing_certificate(loaded, w.statement),
        lambda: check_encryption_certificate(loaded, w.statement),
        lambda: transport_spki(loaded, "example.org"),
        lambda: key_type_of(loaded.public_key()),
        lambda: encode_spki(loaded.public_key()),
        lambda: RevokedIdentities([w.internal]).check(loaded),
        lambda: Validity.of(loaded).dates(),
        lambda: lowest([loaded, w.internal]),
        loaded.subject.rfc4514_string,
    ):
        try:
            check()
        except KeyarkError:
            continue


def peer(pem: bytes) -> None:
    """What TLS hands over of a caller."""
    reader = PeerReader(lambda: world().now, RevokedIdentities([world().internal]))
    reader.check(reader.read({
        "ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [pem], "peer_spiffe_id": [b"spiffe://example.org/client/alice"],
    }))  # fmt: skip


def csr(pem: bytes) -> None:
    request = _load_request(file(pem))
    check_request(request, list(KeyType))
    _ = request.subject.rfc4514_string(), encode_spki(request.public_key())


def identity_list(data: bytes) -> None:
    revoked = RevokedIdentities([world().internal])
    revoked.take(revoked.newer(data))


def statement(raw: bytes) -> None:
    parsed = parse_statement(raw)
    verify_statement(parsed, world().signature)


def private_key(der: bytes) -> None:
    parse_private_key_info(der)


def matching(der: bytes) -> None:
    for spki in world().encryption_spkis:
        try:
            prove_match(der, spki)
        except KeyarkError:
            continue


def envelope(data: bytes) -> None:
    world().transport_key.open(data, world().statement.sha256)


def signed(kind: str, verify: Callable[[SignedStatement], object]) -> Callable[[bytes], object]:
    """Give the input to a verifier as the statement, as the signature, and as the certificate of good words."""

    def run(data: bytes) -> None:
        good = world().signed(kind)
        for part in ("statement", "signature", "certificate"):
            altered = SignedStatement.FromString(good.SerializeToString())
            setattr(altered, part, data)
            try:
                verify(altered)
            except KeyarkError:
                continue

    return run


def call(message: SignedStatement) -> None:
    world().calls().verify(SignedCall.of(message), now=world().now, max_age_seconds=900)


def transport(data: bytes) -> None:
    try:
        message = TransportCertificate.FromString(data)
    except DecodeError:  # the guard refuses it
        return
    TransportTrust(anchors=[world().internal], trust_domain="example.org").verify(message, world().now)


def transport_change(data: bytes) -> None:
    try:
        change = TransportKeyChange.FromString(data)
    except DecodeError:
        return
    keys = FollowedTransportKeys(TransportTrust(anchors=[world().internal], trust_domain="example.org"))
    keys.begin(world().transport_certificate, at=world().now)
    keys.take(change)
    keys.check_offered(change.certificate, at=world().now)


def cosigned(data: bytes) -> None:
    CosignatureVerifier("example.org/rm", world().witness_key.public_key()).verify(data)


def message(data: bytes) -> None:
    for kind in (
        registration_pb2.SubmitEnrollmentsRequest, archive_pb2.ArchiveKeysRequest, archive_pb2.LinkCertificatesRequest,
        certificates_pb2.IssueCertificatePairsRequest, recovery_pb2.RequestCeremonyRequest,
    ):  # fmt: skip
        handler: Any = type("Handler", (), {"request_deserializer": staticmethod(kind.FromString)})
        try:
            _decode(handler, data)
        except InvalidInputError:
            continue


def note(data: bytes) -> None:
    parse_checkpoint(data)
    NoteVerifier.from_public_key("example.org/drm", world().log_spki).verify(data)


def log_key(data: bytes) -> None:
    NoteVerifier.from_public_key("example.org/drm", data)


def proof(data: bytes) -> None:
    parse_proof(data)
    ReceiptVerifier("example.org/drm", world().log_spki).verify(data)


def receipt_file(data: bytes) -> None:
    verify_receipt_file(file(data, "receipt"), world().transport_file)


def merkle(data: bytes) -> None:
    size, index = int.from_bytes(data[:8], "big", signed=True), int.from_bytes(data[8:16], "big", signed=True)
    hashes = [data[start : start + 32] for start in range(16, len(data), 32)]
    for check in (
        lambda: verify_inclusion(
            leaf_hash=b"1" * 32, index=index, tree_size=size, proof=hashes, root=b"2" * 32
        ),
        lambda: verify_consistency(
            first_size=index, second_size=size, first_root=b"1" * 32, second_root=b"2" * 32, proof=hashes
        ),
        lambda: TreeHasher.before(index, tree_size=size, proof=hashes),
    ):
        try:
            check()
        except KeyarkError:
            continue


def event(data: bytes) -> None:
    told = None
    with contextlib.suppress(DecodeError):
        told = AuditDetails.FromString(data)
    if told is not None:
        for kind in (EventType.EVENT_TYPE_RECOVERY_OPENED, EventType.EVENT_TYPE_ENROLLMENT_APPROVED):
            show_entry(new_event(AuditEvent(version=1, type=kind, time_us=len(data)), told))
    show_entry(parse_logged_event(data))


def show_entry(logged: LoggedEvent) -> None:
    entry = ReadEntry(
        log="drm",
        index=0,
        leaf=logged.leaf,
        opened=open_event(logged),
        proof=Proof(tree_size=1, root=bytes(32)),
        details_state=SHOWN,
    )
    with contextlib.suppress(EventError):
        entry.check()
        entry_line(entry)
        json.dumps(entry.facts())


def page(data: bytes) -> None:
    with contextlib.suppress(KeyarkError):
        LogPositions.parse(text(data)[:10_000])
    page_of(PageRequest(page_token=text(data)[:10_000]), query=PageRequest())


def config(kind: type[Any]) -> Callable[[bytes], object]:
    return lambda data: load_config(file(data, "service.toml"), kind)


def bundle(data: bytes) -> None:
    parsed = Bundle.parse(data)
    parsed._check_content()  # what the holder of a signature could say
    parsed.verify(parsed.fingerprints)


def home(data: bytes) -> None:
    for name in ("trust-anchor.pem", "ca.pem", "transport.pem", "rm-log.pem", "cm-log.pem"):
        file(world().transport_file.read_bytes(), name)
    file(data, "keyark.toml")
    Home.load(folder())


def condition(data: bytes) -> None:
    Condition.compile(text(data), "submit").holds(sample_of("submit").context)


def status(data: bytes) -> None:
    try:
        parsed = Status.FromString(data)
    except DecodeError:  # the code alone counts then
        return
    assert isinstance(error_from_status(parsed), KeyarkError)


def failure(data: bytes) -> None:
    try:
        parsed = WorkFailure.FromString(data)
    except DecodeError:
        return
    assert isinstance(unpack_failure(parsed), KeyarkError)


def frames(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        theirs.settimeout(5)
        theirs.sendall(data[:4096])
        theirs.shutdown(socket.SHUT_WR)
        body = read_frame(ours)
    unpack(data if body is None else body)


def pins(data: bytes) -> None:
    file(data, PINS)
    ArchivePins.load(folder())


def issued(data: bytes) -> None:
    file(data, "issued-identities.jsonl")
    IssuedIdentities(folder()).entries()


def names(data: bytes) -> None:
    for check in (check_name, check_email, SpiffeId.parse, check_trust_domain):
        try:
            check(text(data))
        except KeyarkError:
            continue


@cache
def runner() -> asyncio.Runner:
    return asyncio.Runner()


def control(data: bytes) -> None:
    answer = runner().run(_answer(data, Commands({})))
    assert b"UNKNOWN_COMMAND" in answer


async def documents(request: HttpRequest) -> HttpResponse:
    for body in (request.body, _from_url(request.target)):
        try:
            parse_ocsp_request(body)
        except KeyarkError:
            continue
    return cached(request, plain(HTTPStatus.OK), Caching(now=1, max_age=1, last_modified=1, entity_tag='"1"'))


async def serve() -> HttpServer:
    limits = HttpLimits(request_seconds=5, linger_seconds=0.01)
    return await HttpServer.start("127.0.0.1:0", answer=documents, now=lambda: 1, limits=limits)


@cache
def server() -> HttpServer:
    return runner().run(serve())


def http(data: bytes) -> None:
    async def exchange(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    answer = runner().run(exchange(server().port))
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer
    assert not answer.startswith(b"HTTP/1.1 500"), data


OPENING = Opening(digest=b"\x01" * 32, leaf_hash=b"\x02" * 32)

TARGETS = [
    Target("certificate", certificate),
    Target("certificates-pem", load_pem_certificates),
    Target("peer", peer),
    Target("csr", csr),
    Target("identity-list", identity_list),
    Target("spki", lambda data: key_type_of(load_spki(data))),
    Target("statement", statement),
    Target("revocation", lambda data: parse_revocation(data, "example.org")),
    Target(
        "call",
        signed(
            "call", lambda s: world().calls().verify(SignedCall.of(s), now=world().now, max_age_seconds=900)
        ),
    ),
    Target(
        "approval",
        signed("approval", lambda s: world().officers().verify(s, world().statement, now=world().now)),
    ),
    Target("ceremony", signed("ceremony", lambda s: verify_request(s, world().agents, at=world().now))),
    Target(
        "decision", signed("decision", lambda s: verify_decision(s, OPENING, world().agents, at=world().now))
    ),
    Target("facts", parse_facts),
    Target("private-key", private_key),
    Target("match", matching),
    Target("private-key-pem", lambda data: load_private_key(file(data), ask_password=lambda: b"password")),
    Target("pkcs12", lambda data: open_pkcs12(data, password=b"password")),
    Target("envelope", envelope),
    Target("token", load_token),
    Target("share-key", lambda data: ShareKey.from_pem(data, password=b"password")),
    Target(
        "share-key-json",
        lambda data: AgentShareKey.from_json(text(data)).verify(world().internal, at=world().now),
    ),
    Target("hybrid-public-key", lambda data: HybridPublicKey.from_bytes(data).encrypt(b"x", b"y")),
    Target("sealed", lambda data: HybridPrivateKey.from_bytes(b"\x01" * 96).decrypt(data, b"info")),
    Target("key-uri", lambda data: load_private_key_by_uri(text(data), folder())),
    Target("transport", transport),
    Target("transport-change", transport_change),
    Target("transport-memory", lambda data: _remembered(file(data, "transport-keys"))),
    Target(
        "known-keys", lambda data: KnownKeys.load([file(data, "known")]).check(world().statement.signing_spki)
    ),
    Target("cosigned", cosigned),
    Target("ocsp-request", parse_ocsp_request),
    Target("http", http),
    Target("control", control),
    Target("message", message),
    Target("status", status),
    Target("failure", failure),
    Target("frames", frames),
    Target("checkpoint", note),
    Target("log-key", log_key),
    Target("proof", proof),
    Target("receipt-file", receipt_file),
    Target("merkle", merkle),
    Target("event", event),
    Target("leaf", parse_leaf),
    Target("page-token", page),
    Target("rm-toml", config(RmConfig)),
    Target("cm-toml", config(CmConfig)),
    Target("drm-toml", config(DrmConfig)),
    Target("home-toml", home),
    Target("bundle", bundle),
    Target("trial-toml", lambda data: load_requests(file(data, "requests.toml"))),
    Target("condition", condition),
    Target("users-csv", lambda data: read_users(file(data, "users.csv"), profile="user")),
    Target("password-file", lambda data: read_password(file(data))),
    Target("password-list", lambda data: PasswordList(file(data))._read()),
    Target("pins", pins),
    Target("issued", issued),
    Target("names", names),
]
