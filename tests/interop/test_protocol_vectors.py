"""Guards docs/protocol.md: its byte vectors hold for keyark and for the independent client, its tables for the code."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

import cm_service
import drm_service
import rm_service
from keyark.contexts import context
from keyark.custody.envelopes import TransportKey, TransportPublicKey, seal_to_transport
from keyark.custody.matching import prove_match
from keyark.errors import KeyarkError, error_class
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.identity.transport import TransportTrust
from keyark.rpc.errors import status_code
from keyark.service.checks.callers import AT_ONCE_SECONDS
from keyark.statements.calls import CallSigner, CallTrust, SignedCall
from keyark.statements.enrollment import (
    PresentCertificate,
    RenewalSignatureError,
    build_statement,
    parse_statement,
    sign_statement,
    verify_renewal,
    verify_statement,
)
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import ReceiptMismatchError, ReceiptVerifier
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.audit_pb2 import TransportKeyChange
from keyark.v1.common_pb2 import TransportCertificate
from tests.interop import independent_client
from tests.support.keys.pki import DAY, NOW

DOCS = Path(__file__).parents[2] / "docs"
VECTORS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "vectors").glob("*.json")
}
STATEMENTS = VECTORS["statements"]["statements"]
CALL = VECTORS["calls"]
ENVELOPES = VECTORS["envelopes"]["envelopes"]
RECEIPTS = VECTORS["receipts"]["receipts"]


def unhex(text):
    return bytes.fromhex(text)


def by(name):
    return lambda vector: str(vector[name])


@pytest.mark.parametrize("of", [context, independent_client.context], ids=["keyark", "independent"])
def test_contexts(of):
    vectors = VECTORS["contexts"]["contexts"]
    for vector in vectors:
        assert of(vector["label"], *map(unhex, vector["parts"])).hex() == vector["context"]
    assert len({vector["context"] for vector in vectors}) == len(vectors)


@pytest.mark.parametrize("vector", STATEMENTS, ids=by("signing_key_type"))
def test_statements_are_read_as_documented(vector):
    statement = parse_statement(unhex(vector["statement"]))
    for name, value in vector["fields"].items():
        found = 1 if name == "version" else getattr(statement, name)
        assert (found.hex() if isinstance(found, bytes) else found) == value or str(found) == value
    for name in ("enrollment_id", "signing_spki_sha256", "encryption_spki_sha256"):
        assert getattr(statement, name).hex() == vector[name]
    assert statement.sha256.hex() == vector["statement_sha256"]
    verify_statement(statement, unhex(vector["signature"]))
    prove_match(unhex(vector["encryption_private_key"]), statement.encryption_spki)


def fields_of(vector):
    in_bytes = ("request_id", "signing_spki", "encryption_spki", "renews", "renewal_signature")
    return {n: unhex(v) if n in in_bytes else v for n, v in vector["fields"].items() if n != "version"}


@pytest.mark.parametrize("vector", STATEMENTS, ids=by("signing_key_type"))
def test_both_clients_write_the_same_statement(vector):
    fields = fields_of(vector)
    assert independent_client.encode_statement(**fields).hex() == vector["statement"]
    fields["caller"] = SpiffeId.parse(fields["caller"])
    del fields["trust_domain"]
    assert build_statement(**fields).raw.hex() == vector["statement"]


@pytest.mark.parametrize("vector", STATEMENTS, ids=by("signing_key_type"))
@pytest.mark.parametrize("wrote", ["keyark", "independent"])
def test_both_clients_sign_what_verifies(vector, wrote):
    key, raw = load_der_private_key(unhex(vector["signing_private_key"]), None), unhex(vector["statement"])
    sign = {
        "keyark": lambda: sign_statement(raw, key),
        "independent": lambda: independent_client.sign_statement(key, raw),
    }
    signature = sign[wrote]()
    verify_statement(parse_statement(raw), signature)
    if vector["signing_key_type"] == "ed25519":  # the one scheme that signs the same twice
        assert signature.hex() == vector["signature"]


def test_both_clients_write_the_same_renewal():
    """The present key is of Ed25519, which signs the same twice."""
    vector = VECTORS["statements"]["renewal"]
    present, fields = load_der_private_key(unhex(vector["present_private_key"]), None), fields_of(vector)
    signature = fields.pop("renewal_signature")
    unsigned = independent_client.encode_statement(**fields)
    assert independent_client.context("keyark/v1/renewal", unsigned).hex() == vector["signed_by_present_key"]
    assert present.sign(unhex(vector["signed_by_present_key"])) == signature
    raw = independent_client.encode_statement(**fields, renewal_signature=signature)
    assert raw.hex() == vector["statement"]
    fields["caller"] = SpiffeId.parse(fields["caller"])
    del fields["trust_domain"]
    certificate = PresentCertificate(serial=fields.pop("renews"), private_key=present)
    assert build_statement(**fields, present=certificate).raw == raw


def test_a_renewal_is_read_as_documented():
    vector = VECTORS["statements"]["renewal"]
    test_statements_are_read_as_documented(vector)
    statement = parse_statement(unhex(vector["statement"]))
    verify_renewal(statement, load_der_private_key(unhex(vector["present_private_key"]), None).public_key())
    with pytest.raises(RenewalSignatureError):
        verify_renewal(statement, statement.signing_public_key)


@pytest.mark.parametrize("vector", VECTORS["statements"]["refused"], ids=by("why"))
def test_statements_are_refused_as_documented(vector):
    with pytest.raises(KeyarkError) as caught:
        parse_statement(unhex(vector["statement"]))
    assert (caught.value.reason, caught.value.field) == (vector["reason"], vector["field"])


@pytest.mark.parametrize("vector", VECTORS["statements"]["refused_signatures"], ids=by("why"))
def test_signatures_are_refused_as_documented(vector):
    with pytest.raises(KeyarkError) as caught:
        verify_statement(parse_statement(unhex(vector["statement"])), unhex(vector["signature"]))
    assert caught.value.reason == vector["reason"]


@pytest.mark.parametrize("vector", STATEMENTS, ids=by("signing_key_type"))
def test_altered_statements_do_not_verify(vector):
    altered = unhex(vector["statement"]).replace(b"zoe@example.org", b"eve@example.org")
    with pytest.raises(KeyarkError) as caught:
        verify_statement(parse_statement(altered), unhex(vector["signature"]))
    assert caught.value.reason == "STATEMENT_SIGNATURE"


def trust_of(vector):
    anchors = [x509.load_der_x509_certificate(unhex(vector["trust_anchor"]))]
    return CallTrust(trust_domain="example.org", anchors=anchors, revoked=RevokedIdentities(anchors))


def signed_call(vector):
    return SignedCall(*(unhex(vector[name]) for name in ("statement", "signature", "certificate")))


def test_a_signed_call_is_taken_as_documented():
    fields, call = CALL["fields"], signed_call(CALL)
    taken = trust_of(CALL).verify(call, now=CALL["valid_at"], max_age_seconds=AT_ONCE_SECONDS)
    assert (str(taken.caller), taken.time) == (fields["caller"], fields["time"])
    assert [digest.hex() for digest in taken.statement_sha256] == fields["statement_sha256"]
    assert context("keyark/v1/enrollment-call", call.statement).hex() == CALL["signed"]
    statements = [parse_statement(unhex(v["statement"])) for v in STATEMENTS]
    taken.check_sends(taken.caller, [statement.raw for statement in statements])
    for statement in statements:
        taken.check_names(statement)


def test_both_clients_sign_the_same_call():
    key, fields = load_der_private_key(unhex(CALL["private_key"]), None), CALL["fields"]
    statements = [unhex(v["statement"]) for v in STATEMENTS]
    raw = independent_client.encode_call(
        trust_domain=fields["trust_domain"],
        caller=fields["caller"],
        at=fields["time"],
        statements=statements,
    )
    certificate = x509.load_der_x509_certificate(unhex(CALL["certificate"]))
    mine = CallSigner(certificate=certificate, private_key=key).sign(statements, time=fields["time"])
    assert raw.hex() == mine.statement.hex() == CALL["statement"]
    theirs = mine._replace(signature=independent_client.sign_call(key, raw))
    for call in (mine, theirs):
        trust_of(CALL).verify(call, now=CALL["valid_at"], max_age_seconds=AT_ONCE_SECONDS)


@pytest.mark.parametrize("refused", CALL["refused"], ids=by("why"))
def test_signed_calls_are_refused_as_documented(refused):
    with pytest.raises(KeyarkError) as caught:
        trust_of(CALL).verify(signed_call(refused), now=CALL["valid_at"], max_age_seconds=AT_ONCE_SECONDS)
    assert caught.value.reason == refused["reason"]


@pytest.mark.parametrize("vector", ENVELOPES, ids=by("suite"))
def test_envelopes_open(vector):
    key = TransportKey(load_der_private_key(unhex(vector["transport_private_key"]), None))
    assert key.key_id.hex() == vector["transport_key_id"]
    opened = key.open(unhex(vector["envelope"]), unhex(vector["statement_sha256"]))
    assert opened.hex() == vector["private_key"]
    ids = unhex(vector["transport_key_id"]), unhex(vector["statement_sha256"])
    assert context("keyark/v1/transport-envelope", *ids).hex() == vector["info"]


@pytest.mark.parametrize("vector", ENVELOPES, ids=by("suite"))
@pytest.mark.parametrize("wrote", ["keyark", "independent"])
def test_both_clients_wrap_what_opens(vector, wrote):
    private = load_der_private_key(unhex(vector["transport_private_key"]), None)
    key, raw = TransportKey(private), unhex(STATEMENTS[0]["statement"])
    statement_sha256 = unhex(STATEMENTS[0]["statement_sha256"])
    if wrote == "keyark":
        public = TransportPublicKey(private.public_key(), key.key_id)
        envelope = seal_to_transport(b"key", transport_public_key=public, statement_sha256=statement_sha256)
    else:
        envelope = independent_client.wrap(b"key", private.public_key(), raw)
    assert key.open(envelope, statement_sha256) == b"key"
    with pytest.raises(KeyarkError):
        key.open(envelope, unhex(STATEMENTS[1]["statement_sha256"]))


@pytest.mark.parametrize("vector", ENVELOPES, ids=by("suite"))
def test_envelopes_are_refused_as_documented(vector):
    key = TransportKey(load_der_private_key(unhex(vector["transport_private_key"]), None))
    for refused in vector["refused"]:
        with pytest.raises(KeyarkError) as caught:
            key.open(unhex(refused["envelope"]), unhex(refused["statement_sha256"]))
        assert caught.value.reason == refused["reason"], refused["why"]


def verify_by_keyark(vector, receipt):
    verified = ReceiptVerifier(vector["origin"], unhex(vector["transport_public_key"])).verify(receipt)
    return leaf_hash(verified.leaf), verified.index, verified.checkpoint.size, verified.checkpoint.root


def verify_independently(vector, receipt):
    spki = unhex(vector["transport_public_key"])
    verified = independent_client.verify_receipt(receipt, transport_spki=spki, origin=vector["origin"])
    return verified.leaf_hash, verified.index, verified.tree_size, verified.root


both = pytest.mark.parametrize(
    ("verify", "refusal"),
    [(verify_by_keyark, KeyarkError), (verify_independently, independent_client.Refused)],
    ids=["keyark", "independent"],
)
every_receipt = pytest.mark.parametrize("vector", RECEIPTS, ids=["ecdsa-p256", "rsa-3072"])


@both
@every_receipt
def test_receipts_verify(vector, verify, refusal):
    hashed, index, size, root = verify(vector, vector["receipt"].encode())
    assert (hashed.hex(), index, size, root.hex()) == (
        vector["leaf_hash"],
        vector["index"],
        vector["tree_size"],
        vector["root"],
    )
    assert vector["receipt"].endswith("\n\n" + vector["checkpoint"])


@both
@every_receipt
def test_no_altered_receipt_verifies(vector, verify, refusal):
    """Every character of every line counts, but for the em dash that only frames the signature."""
    receipt = vector["receipt"]
    for place in range(0, len(receipt), 7):
        if receipt[place] in "\n\u2014":
            continue
        altered = receipt[:place] + ("A" if receipt[place] != "A" else "B") + receipt[place + 1 :]
        with pytest.raises(refusal):
            verify(vector, altered.encode())


@both
@every_receipt
def test_no_receipt_verifies_under_another_key_or_origin(vector, verify, refusal):
    other = next(r for r in RECEIPTS if r is not vector)
    with pytest.raises(refusal):
        verify({**vector, "transport_public_key": other["transport_public_key"]}, vector["receipt"].encode())
    with pytest.raises(refusal):
        verify({**vector, "origin": "example.net/drm"}, vector["receipt"].encode())


@both
@every_receipt
def test_no_receipt_verifies_with_lines_missing_or_added(vector, verify, refusal):
    lines = vector["receipt"].split("\n")
    proof = 3
    for altered in (
        lines[:proof] + lines[proof + 1 :],
        [*lines[:proof], lines[proof], *lines[proof:]],
        lines[:1] + lines[2:],
        [*lines[:2], f"index {vector['index'] + 1}", *lines[3:]],
        [*lines[:2], f"index 0{vector['index']}", *lines[3:]],
    ):
        with pytest.raises(refusal):
            verify(vector, "\n".join(altered).encode())


@every_receipt
def test_receipts_are_for_their_statement_only(vector):
    verified = ReceiptVerifier(vector["origin"], unhex(vector["transport_public_key"])).verify(
        vector["receipt"].encode()
    )
    found = independent_client.verify_receipt(
        vector["receipt"].encode(),
        transport_spki=unhex(vector["transport_public_key"]),
        origin=vector["origin"],
    )
    for example in STATEMENTS:
        statement = parse_statement(unhex(example["statement"]))
        request = independent_client.Request(fields_of(example), statement.raw, b"", None)
        if example is STATEMENTS[0]:
            check_receipt_for(verified, statement)
            independent_client.check_receipt(found, request)
            continue
        with pytest.raises(ReceiptMismatchError):
            check_receipt_for(verified, statement)
        with pytest.raises(independent_client.Refused):
            independent_client.check_receipt(found, request)


@every_receipt
def test_the_documented_offline_check_takes_both_types_of_key(vector, tmp_path):
    """The script in section 8 of the document, as it stands there, with python and openssl only."""
    document = (DOCS / "protocol.md").read_text(encoding="utf-8")
    (tmp_path / "verify_receipt.py").write_text(re.search(r"```python\n(.*?)```", document, re.DOTALL)[1])
    certificate = x509.load_der_x509_certificate(unhex(vector["transport_certificate"]))
    (tmp_path / "transport.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "receipt").write_text(vector["receipt"], encoding="utf-8")
    for number, example in enumerate(STATEMENTS[:2]):
        (tmp_path / "statement.bin").write_bytes(unhex(example["statement"]))
        words = ["verify_receipt.py", "receipt", "transport.pem", vector["origin"], "statement.bin"]
        done = subprocess.run([sys.executable, "-I", *words], cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode == 0) == (number == 0), done.stderr


def transport_key_by_keyark(message, anchor, trust_domain, at):
    return TransportTrust(anchors=[anchor], trust_domain=trust_domain).verify(message, at)


def transport_key_independently(message, anchor, trust_domain, at):
    key = independent_client.check_transport_certificate(
        message, anchor=anchor, trust_domain=trust_domain, at=at
    )
    return independent_client.spki_of(key)


@pytest.mark.parametrize(
    ("check", "refusal"),
    [(transport_key_by_keyark, KeyarkError), (transport_key_independently, independent_client.Refused)],
    ids=["keyark", "independent"],
)
@every_receipt
def test_transport_certificates_are_believed_below_their_anchor_only(vector, check, refusal):
    message = TransportCertificate(certificate=unhex(vector["transport_certificate"]))
    anchor = x509.load_der_x509_certificate(unhex(vector["trust_anchor"]))
    at = vector["valid_at"]
    assert check(message, anchor, "example.org", at).hex() == vector["transport_public_key"]
    leaf = x509.load_der_x509_certificate(message.certificate)
    itself = TransportCertificate(certificate=unhex(vector["trust_anchor"]))
    for refused in (
        (message, leaf, "example.org", at),
        (message, anchor, "example.net", at),
        (message, anchor, "example.org", 0),
        (itself, anchor, "example.org", at),
    ):
        with pytest.raises(refusal):
            check(*refused)


def documented_reasons():
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", (DOCS / "protocol.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) == len(dict(rows)), "a reason stands twice"
    return dict(rows)


def take_by_keyark(change: TransportKeyChange) -> bytes:
    vector = VECTORS["transport_changes"]
    anchor = x509.load_der_x509_certificate(unhex(vector["trust_anchor"]))
    keys = FollowedTransportKeys(TransportTrust(anchors=[anchor], trust_domain="example.org"))
    first = TransportCertificate(certificate=unhex(vector["certificate_in_force"]))
    keys.begin(first, at=NOW + 3 * DAY)
    keys.take(change)
    return keys.public_keys[0]


def take_independently(change: TransportKeyChange) -> bytes:
    vector = VECTORS["transport_changes"]
    taken: bytes = independent_client.take_change(
        change,
        key_in_force=unhex(vector["key_in_force"]),
        anchor=x509.load_der_x509_certificate(unhex(vector["trust_anchor"])),
        trust_domain="example.org",
        origin=vector["origin"],
    )
    return taken


@pytest.mark.parametrize(
    ("take", "refusal"),
    [(take_by_keyark, KeyarkError), (take_independently, independent_client.Refused)],
    ids=["keyark", "independent"],
)
def test_a_transport_key_follows_by_the_word_of_the_key_in_force_only(take, refusal):
    vector = VECTORS["transport_changes"]
    good = TransportKeyChange.FromString(unhex(vector["change"]))
    assert take(good) == unhex(vector["next_key"])
    for refused in vector["refused"]:
        with pytest.raises(refusal):
            take(TransportKeyChange.FromString(unhex(refused["change"])))


def test_every_documented_reason_has_its_grpc_code():
    for package in (rm_service, cm_service, drm_service):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    for reason, code in documented_reasons().items():
        found = error_class(reason)
        assert found is not None, f"{reason} is no reason of the code"
        assert status_code(SimpleNamespace(kind=found.kind)).name == code, reason


def test_every_reason_that_a_request_can_meet_is_documented():
    modules = (
        "keyark.custody.envelopes",
        "keyark.custody.matching",
        "keyark.keys.pkcs8",
        "keyark.statements.calls",
        "keyark.keys.key_types",
        "keyark.keys.spki",
        "keyark.statements.enrollment",
        "keyark.identity.transport",
        "keyark.service.checks.callers",
        "keyark.service.checks.evidence",
        "keyark.service.checks.key_uses",
        "keyark.service.checks.requests",
        "keyark.transparency.heads",
        "keyark.transparency.receipts",
        "keyark.transparency.transport_keys",
        "keyark.workers.pool",
        "keyark.workers.process",
        "rm_service.downstream.archive",
        "rm_service.enrollment.steps",
        "rm_service.enrollment.forms",
        "cm_service.issuance.steps",
        "cm_service.issuer.profiles",
        "keyark.statements.revocations",
    )
    defined = {
        value.reason
        for name in modules
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, KeyarkError) and value.__module__ == name
    }
    internal = {"CHECKPOINT_GAP", "WORKER_START", "RECEIPT_INVALID"}  # resolved, at start, or a base class
    assert defined - internal <= set(documented_reasons())
