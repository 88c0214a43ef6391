"""Makes what is missing of ``seeds/`` and ``world/``; what is there stays. Findings of `make fuzz` are added by hand.

Run from the root of the repository: python -m tests.fuzz.make_seeds
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.envelopes import TransportPublicKey, seal_to_transport
from keyark.custody.storage import HybridPrivateKey
from keyark.custody.token import create_software_token
from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.errors import InvalidInputError, PolicyRejectedError, Violation
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import encode_private_key
from keyark.keys.spki import encode_spki
from keyark.rpc.errors import error_to_status
from keyark.service.failures import pack_failure
from keyark.service.paging import page_of
from keyark.statements.approvals import Edits, OfficerSigner
from keyark.statements.calls import CallSigner
from keyark.statements.ceremonies import AgentSigner, Opening, sign_decision, sign_request
from keyark.statements.enrollment import parse_statement, sign_statement
from keyark.statements.revocations import build_revocation
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.cosignatures import Cosigner
from keyark.transparency.events import new_event
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1 import archive_pb2, certificates_pb2, registration_pb2
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, TransportKeyChange
from keyark.v1.ceremony_pb2 import (
    CeremonyStatement,
    CeremonyType,
    Decision,
    OpeningFacts,
    ShareFacts,
    StorageKeyFacts,
)
from keyark.v1.common_pb2 import PageRequest, TransportCertificate
from keyark.workers.frames import frame, pack
from keyark.x509.authority import Authority, ca_name, create_internal_ca
from keyark.x509.certificates import Validity, encode_certificate
from keyark.x509.pkcs12 import KeyEntry, Pkcs12Form, Pkcs12Writer
from tests.fuzz.targets import SEEDS
from tests.fuzz.world import FOLDER, INTERNAL, NOW, PERSON, SIGNING, TRANSPORT, ec_key
from tests.support.keys.crypto import pkcs8
from tests.support.keys.pki import (
    CA_VALIDITY,
    DAY,
    VALIDITY,
    issue_pair,
    issuing_ca,
    private_key,
    spki,
    statement_bytes,
)
from tests.support.running import rpc
from tests.support.stories.transparency import append, memory_store, new_log, receipt_of
from tests.support.stories.transparency import entry as log_entry

TYPES = (KeyType.EC_P256, KeyType.EC_P521, KeyType.RSA_2048, KeyType.X25519, KeyType.ML_KEM_768)


def put(name: str, *inputs: bytes) -> None:
    """Write the seeds of a target, unless it has some."""
    folder = SEEDS / name
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for number, data in enumerate(inputs):
            (folder / f"{number:02}").write_bytes(data)


def internal() -> Authority:
    """The internal CA of the world, made anew."""
    return create_internal_ca(ec_key(INTERNAL), subject=ca_name("Internal CA"), validity=CA_VALIDITY)


LATER = Validity.starting(NOW + 60, lifetime_seconds=365 * DAY)
"""Of a transport key that comes after another."""


def person(
    authority: Authority, path: str, number: int = PERSON, validity: Validity = VALIDITY
) -> x509.Certificate:
    """A certificate of an identity."""
    identity = SpiffeId("example.org", path)
    return issue_identity(
        authority, request_identity(ec_key(number), identity), identity=identity, validity=validity
    )


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def make_world(authority: Authority) -> None:
    """Write what was signed for the world."""
    FOLDER.mkdir(exist_ok=True)
    files: dict[str, bytes] = {"internal.der": encode_certificate(authority.certificate)}
    transport = person(authority, "drm/transport", TRANSPORT)
    files["transport.pem"] = pem(transport)
    raw = statement_bytes(
        caller=SpiffeId("example.org", "client/alice"), signing_spki=encode_spki(ec_key(SIGNING).public_key())
    )
    files["statement.bin"], files["signature.bin"] = raw, sign_statement(raw, ec_key(SIGNING))
    for key_type in TYPES:
        files[f"encryption-{key_type.value}.spki"] = spki(key_type, 1)
    statement = parse_statement(raw)
    client, officer = person(authority, "client/alice"), person(authority, "officer/olga")
    agent = AgentSigner(certificate=person(authority, "agent/alice"), private_key=ec_key(PERSON))
    words = {
        "call": CallSigner(certificate=client, private_key=ec_key(PERSON)).sign([raw], time=NOW),
        "approval": OfficerSigner(certificate=officer, private_key=ec_key(PERSON)).approve(
            statement, Edits(common_name="Alice B. Example", validity_days=30), time=NOW
        ),
        "ceremony": sign_request(
            CeremonyStatement(
                type=CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
                ceremony_id=statement.request_id,
                reason="disk broke",
                key_ids=[bytes(32)],
                recipient_public_key=HybridPrivateKey.from_bytes(b"\x01" * 96).public_key.to_bytes(),
            ),
            agent,
        ),
        "decision": sign_decision(
            Opening(digest=b"\x01" * 32, leaf_hash=b"\x02" * 32),
            agent,
            decision=Decision.DECISION_APPROVE,
            time_us=NOW * 1_000_000,
        ),
    }
    files |= {
        f"{kind}.signed": signed.SerializeToString(deterministic=True) for kind, signed in words.items()
    }
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    for kind, signed in words.items():
        put(kind, signed.statement, signed.signature, signed.certificate)
    make_certificates(authority, transport, client)
    make_messages(raw, files["signature.bin"])


def make_certificates(authority: Authority, transport: x509.Certificate, client: x509.Certificate) -> None:
    """Write certificates, requests and lists."""
    pair = issue_pair(issuing_ca())
    ders = [encode_certificate(client), encode_certificate(transport), encode_certificate(authority.certificate),
            pair.signing, pair.encryption]  # fmt: skip
    put("certificate", *ders)
    put("certificates-pem", pem(client), pem(client) + pem(authority.certificate))
    put("peer", pem(client), pem(transport))
    put(
        "csr",
        request_identity(ec_key(PERSON), SpiffeId("example.org", "client/alice")).public_bytes(Encoding.PEM),
    )
    revoked = rpc.identity_list(7, 2**150, authority=authority)
    put("identity-list", revoked, x509.load_der_x509_crl(revoked).public_bytes(Encoding.PEM))
    chain = TransportCertificate(certificate=encode_certificate(transport), chain=[ders[2]])
    put("transport", chain.SerializeToString())
    issuer = issuing_ca().certificate
    asked = ocsp.OCSPRequestBuilder().add_certificate(
        x509.load_der_x509_certificate(pair.signing), issuer, hashes.SHA256()
    )
    request = asked.build().public_bytes(Encoding.DER)
    with_nonce = (
        asked.add_extension(x509.OCSPNonce(b"nonce"), critical=False).build().public_bytes(Encoding.DER)
    )
    put("ocsp-request", request, with_nonce)
    put("http", b"POST /ocsp HTTP/1.1\r\nHost: ca\r\nContent-Length: %d\r\n\r\n" % len(request) + request,
        b"GET /crl/full.crl?x=1 HTTP/1.1\r\nHost: ca\r\nIf-Modified-Since: Mon, 01 Jan 2029 00:00:00 GMT\r\n\r\n",
        b'GET /ca.pem HTTP/1.0\r\nIf-None-Match: W/"1", "2"\r\nRange: bytes=0-5\r\n\r\n',
        b"POST / HTTP/1.1\r\nHost: ca\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n")  # fmt: skip


def make_messages(raw: bytes, signature: bytes) -> None:
    """Write statements, messages and what is sealed."""
    put("statement", raw, *(statement_bytes(signing=KeyType.ED25519, encryption=t) for t in TYPES[1:4]))
    put("spki", *(spki(key_type, 1) for key_type in TYPES), spki(KeyType.ED25519))
    put("revocation", build_revocation(trust_domain="example.org", serials=[b"\x01" * 20], reason=1))
    put("private-key", *(pkcs8(private_key(key_type, 1)) for key_type in TYPES))
    put("match", *(pkcs8(private_key(key_type, 1)) for key_type in TYPES))
    key = ec_key(PERSON)
    put("private-key-pem", encode_private_key(key), encode_private_key(private_key(KeyType.X25519, 1)))
    sealed = seal_to_transport(
        pkcs8(private_key(KeyType.EC_P256, 1)),
        transport_public_key=TransportPublicKey.from_spki(encode_spki(ec_key(TRANSPORT).public_key())),
        statement_sha256=parse_statement(raw).sha256,
    )
    put("envelope", sealed)
    submit = registration_pb2.SubmitEnrollmentsRequest(
        items=[
            registration_pb2.EnrollmentRequest(statement=raw, signature=signature, wrapped_private_key=sealed)
        ]
    )
    archive = archive_pb2.ArchiveKeysRequest(
        items=[archive_pb2.ArchiveItem(statement=raw, signature=signature, wrapped_private_key=sealed)]
    )
    issue = certificates_pb2.IssueCertificatePairsRequest(
        items=[certificates_pb2.PairRequest(statement=raw, signature=signature, receipt=b"receipt")]
    )
    put("message", *(one.SerializeToString() for one in (submit, archive, issue)))
    errors = (
        InvalidInputError("It is wrong.", field="email"),
        PolicyRejectedError("No.", violations=[Violation(rule="r", subsystem="rm", message="m")]),
    )
    put("status", *(error_to_status(error).SerializeToString() for error in errors))
    put("failure", *(pack_failure(error).SerializeToString() for error in errors))
    put("frames", frame(pack([b"one", b"", b"three"])), pack([b"one"]))


def make_secrets(authority: Authority) -> None:
    """Write tokens, share keys, and files with keys."""
    share_key = ShareKey.from_bytes(b"\x02" * 96)
    public = AgentShareKey.create(
        share_key=share_key, certificate=person(authority, "agent/alice"), certificate_key=ec_key(PERSON)
    )
    token, _ = create_software_token([public], 1)
    put("token", token.SerializeToString(deterministic=True))
    put("share-key", share_key.to_pem(password=None))
    put("share-key-json", public.to_json().encode())
    put("hybrid-public-key", share_key.public_key.to_bytes())
    put("sealed", HybridPrivateKey.from_bytes(b"\x01" * 96).public_key.encrypt(b"secret", b"info"))
    put(
        "key-uri",
        b"file:key.pem",
        b"file:///etc/key.pem",
        b"pkcs11:token=x;object=y?pin-value=1",
        b"pkcs11:token=x;id=%01%ff;type=private?module-path=/lib/p11.so&pin-source=file:/etc/pin",
    )
    facts = StorageKeyFacts(
        storage_key_id=bytes(32), generation=1, pin_epoch=1, quorum=1,
        shares=[ShareFacts(agent=public.agent, share_key_id=bytes(32), commitment=bytes(32))],
    )  # fmt: skip
    put("facts", OpeningFacts(version=1, storage_keys=[facts]).SerializeToString(deterministic=True))
    client = person(authority, "client/alice")
    entry = KeyEntry(name="alice", private_key=ec_key(PERSON), certificate=client)
    put(
        "pkcs12",
        Pkcs12Writer(b"password", Pkcs12Form.COMPATIBLE).build([entry], chain=[authority.certificate]),
    )


async def make_log() -> None:
    """Write checkpoints, entries and receipts of a log under the world's transport key."""
    log = new_log(NoteSigner.from_private_key("example.org/drm", ec_key(TRANSPORT)))
    store = memory_store(log)
    await log.open(store)
    *_, last = await append(log, store, *(log_entry(number) for number in range(5)))
    receipt = await receipt_of(log, last)
    put("checkpoint", (await log.checkpoint()).note)
    put("proof", receipt)
    put("receipt-file", receipt)
    told = AuditDetails(
        caller="spiffe://example.org/agent/alice",
        reason="lost",
        message="because",
        ceremony_request=(FOLDER / "ceremony.signed").read_bytes(),
        decision=(FOLDER / "approval.signed").read_bytes(),
        invalidity_time=5,
    )
    put(
        "event",
        log_entry(1).SerializeToString(deterministic=True),
        told.SerializeToString(deterministic=True),
    )
    put("leaf", log_entry(1).leaf)
    put("log-key", encode_spki(ec_key(TRANSPORT).public_key()), spki(KeyType.ED25519))
    put("merkle", (7).to_bytes(8, "big") + (3).to_bytes(8, "big") + b"h" * 96, bytes(16))


async def make_changes(internal_certificate: x509.Certificate) -> None:
    """Write how the transport key changes, and a cosigned head of the log under the new one."""
    authority = Authority(certificate=internal_certificate, private_key=ec_key(INTERNAL))
    key_id = sha256(encode_spki(ec_key(PERSON).public_key())).digest()
    rotated = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_TRANSPORT_KEY_ROTATED,
        time_us=NOW * 1_000_000,
        transport_key_id=key_id,
    )
    log = new_log(NoteSigner.from_private_key("example.org/drm", ec_key(PERSON)))
    store = memory_store(log)
    await log.open(store)
    (index,) = await append(log, store, new_event(rotated, AuditDetails()))
    certificate = TransportCertificate(
        certificate=encode_certificate(person(authority, "drm/transport", validity=LATER)),
        chain=[encode_certificate(internal_certificate)],
    )
    change = TransportKeyChange(certificate=certificate, proof=await receipt_of(log, index))
    put("transport-change", change.SerializeToString())
    witness = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    put("cosigned", Cosigner("example.org/rm", witness).cosign((await log.checkpoint()).note, at=NOW))
    keys = FollowedTransportKeys(TransportTrust(anchors=[internal_certificate], trust_domain="example.org"))
    keys.begin(certificate, at=NOW)
    put("transport-memory", keys.record.SerializeToString())
    put("known-keys", b"".join(bytes([number]) * 16 for number in range(20)))


def make_texts(folder: Path) -> None:
    """Write configuration and other text."""
    initialize(DeploymentPlan(folder=folder), lambda _: None)
    for role in ("rm", "cm", "drm"):
        put(f"{role}-toml", (folder / role / f"{role}.toml").read_bytes())
    put("home-toml", (folder / "keyark.toml").read_bytes())
    put("bundle", (folder / "deployment.toml").read_bytes())
    put(
        "trial-toml",
        b'[[request]]\nprofile = "user"\ncaller = "client/a"\ncommon_name = "A"\nemail = "a@example.org"\n',
    )
    put("condition", b'caller == "client/a" && email.endsWith("@example.org")',
        b'common_name.matches("(a+)+b") || [1, 2].exists(x, x > 1)')  # fmt: skip
    put("users-csv", b'name,email,profile\nAlice Example,alice@example.org,user\n"B, C",b@example.org,\n')
    put("password-file", b"correct horse\n", "\ufeffp\u00e4ss\r\n".encode("utf-16"))
    put("password-list", b"email,password\r\nalice@example.org,abc\r\n")
    put("pins", json.dumps({"version": 2, "agents": {"spiffe://example.org/agent/a": "00" * 32}, "quorum": 1,
        "self_approval": False, "storage_keys": ["11" * 32], "pin_epochs": [1],
        "changes": [], "approved": {}}).encode())  # fmt: skip
    issued = {"identity": "rm", "serial": "7f", "spki_sha256": "00" * 32, "not_before": 1, "not_after": 2}
    put("issued", json.dumps(issued).encode() + b"\n")
    put(
        "names",
        "Zoë Example".encode(),
        b"alice@example.org",
        b"spiffe://example.org/client/alice",
        b"example.org",
    )
    put("control", b'["reload"]\n', b'["relink", "00"]')
    page = page_of(PageRequest(), query=PageRequest())
    put("page-token", page.token(b"position").encode(), b"", b"rm:12,cm:40,drm:7")


def main() -> None:
    """Make everything that is missing."""
    authority = internal()
    if not (FOLDER / "internal.der").exists():
        make_world(authority)
        make_secrets(authority)
    asyncio.run(make_log())
    asyncio.run(make_changes(x509.load_der_x509_certificate((FOLDER / "internal.der").read_bytes())))
    with tempfile.TemporaryDirectory() as folder:
        make_texts(Path(folder) / "deployment")


if __name__ == "__main__":
    main()
