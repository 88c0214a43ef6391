"""An enrollment client written from docs/protocol.md, to prove that the document is enough.

It takes nothing of keyark but the messages and stubs that the protos generate. Run it as a program::

    python independent_client.py --rm 127.0.0.1:7710 --home deployment --identity client/enroller \
        --name "Alice Example" --email alice@example.org

It prints JSON: what it enrolled and verified, or ``error``. Section numbers are those of the document.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import secrets
import sys
import time
import uuid
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from keyark.v1 import (
    audit_pb2,
    ceremony_pb2,
    common_pb2,
    registration_pb2,
    registration_pb2_grpc,
    statement_pb2,
)

CALL_SECONDS = 60
GENERATORS = {
    "RSA_2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA_3072": lambda: rsa.generate_private_key(65537, 3072),
    "RSA_4096": lambda: rsa.generate_private_key(65537, 4096),
    "EC_P256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EC_P384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EC_P521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ED25519": ed25519.Ed25519PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "ML_DSA_44": mldsa.MLDSA44PrivateKey.generate,
    "ML_DSA_65": mldsa.MLDSA65PrivateKey.generate,
    "ML_DSA_87": mldsa.MLDSA87PrivateKey.generate,
    "ML_KEM_768": mlkem.MLKEM768PrivateKey.generate,
    "ML_KEM_1024": mlkem.MLKEM1024PrivateKey.generate,
}
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
ECDSA_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
HPKE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.CERTIFICATE_POLICIES,
}
STRONG = {"sha256", "sha384", "sha512"}
TLS_PURPOSES = {
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}


class Refused(Exception):
    """An answer that does not hold; nothing of it is believed."""


def require(condition, sentence):
    """Go on only if the condition holds."""
    if not condition:
        raise Refused(sentence)


def sha256(data):
    return hashlib.sha256(data).digest()


def context(label, *parts):
    """Section 3: every part after its length."""
    return b"".join(len(p).to_bytes(4, "big") + p for p in (label.encode(), *parts))


def spki_of(public_key):
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# Section 4: the statement


def new_request_id():
    """A UUIDv7."""
    value = bytearray(int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10))
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(value)).bytes


def encode_statement(**fields):
    """Field by field in the wire format of protocol buffers: canonical because written so."""
    order = ("trust_domain", "caller", "request_id", "profile", "common_name", "email")
    encoded = b"\x08\x01"
    spkis, renewal = ("signing_spki", "encryption_spki"), ("renews", "renewal_signature")
    for number, name in enumerate((*order, *spkis, *renewal), start=2):
        if name not in fields:
            continue
        value = fields[name] if isinstance(fields[name], bytes) else fields[name].encode()
        encoded += bytes([number << 3 | 2]) + _varint(len(value)) + value
    return encoded


def _varint(number):
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def enrollment_id(request_id, caller):
    return request_id + sha256(caller.encode())[:16]


# Section 5: proof of possession


def sign_statement(key, statement):
    message = context("keyark/v1/enrollment-statement", statement)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, PSS, hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(ECDSA_HASHES[key.curve.key_size]))
    return key.sign(message)


def encode_call(*, trust_domain, caller, at, statements):
    """The signed call of section 5: like the statement, field by field."""
    encoded = b"\x08\x01"
    for number, text in ((2, trust_domain), (3, caller)):
        encoded += bytes([number << 3 | 2]) + _varint(len(text)) + text.encode()
    encoded += b"\x20" + _varint(at)
    return encoded + b"".join(b"\x2a\x20" + sha256(statement) for statement in statements)


def sign_call(key, call):
    return key.sign(context("keyark/v1/enrollment-call", call), ec.ECDSA(hashes.SHA256()))


# Section 6: the transport certificate


def check_path(leaf, chain, anchor, at):
    """Climb from a certificate to the trust anchor, checking every step."""
    path = [leaf]
    while path[-1].issuer != anchor.subject:
        issuers = [c for c in chain if c.subject == path[-1].issuer and c not in path]
        require(issuers, "no path leads to the trust anchor")
        path.append(issuers[0])
    path.append(anchor)
    for below, (certificate, issuer) in enumerate(pairwise(path)):
        try:
            certificate.verify_directly_issued_by(issuer)
            basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
            usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            raise Refused("a certificate of the path is not signed by the next, or that is no CA") from None
        length = basic.value.path_length
        require(basic.critical and basic.value.ca and usage.key_cert_sign, "an issuer is no CA")
        require(length is None or below <= length, "the path is longer than a CA permits")
    for certificate in path:
        in_force = (
            certificate.not_valid_before_utc.timestamp() <= at <= certificate.not_valid_after_utc.timestamp()
        )
        require(in_force, "a certificate of the path is not in force")
        digest = certificate.signature_hash_algorithm
        require(digest is None or digest.name in STRONG, "a certificate is signed with a weak hash")
        critical = {e.oid for e in certificate.extensions if e.critical}
        require(critical <= UNDERSTOOD, "a certificate has a critical extension that is not understood")
    return path


def require_extensions(certificate, *kinds):
    present = {type(extension.value) for extension in certificate.extensions}
    require(present >= set(kinds), "a certificate lacks an extension that says what it is for")


def check_transport_certificate(message, *, anchor, trust_domain, at):
    """Return the transport key, once its certificate proved to be the deployment's."""
    require(len(message.chain) <= 8, "the chain is too long")
    certificate, *chain = (
        x509.load_der_x509_certificate(der) for der in (message.certificate, *message.chain)
    )
    check_path(certificate, chain, anchor, at)
    require_extensions(certificate, x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage)
    extension = certificate.extensions.get_extension_for_class
    uris = extension(x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)
    require(uris == [f"spiffe://{trust_domain}/drm/transport"], "not the certificate of the transport key")
    require(not TLS_PURPOSES & set(extension(x509.ExtendedKeyUsage).value), "the certificate is for TLS")
    usage, key = extension(x509.KeyUsage).value, certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        require(key.key_size == 3072 and usage.key_encipherment, "the key may not wrap")
    else:
        is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        require(is_p256 and usage.key_agreement, "the key may not wrap")
    require(usage.digital_signature, "the key may not sign")
    return key


# Section 7: the envelope


def wrap(private_key_der, transport_key, statement):
    key_id = sha256(spki_of(transport_key))
    info = context("keyark/v1/transport-envelope", key_id, sha256(statement))
    if isinstance(transport_key, rsa.RSAPublicKey):
        suite = statement_pb2.ENVELOPE_SUITE_RSA_OAEP_SHA256_AES256GCM
        secret, nonce = os.urandom(32), os.urandom(12)
        aes = AESGCM(HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(secret))
        sealed = transport_key.encrypt(secret, OAEP) + nonce + aes.encrypt(nonce, private_key_der, info)
    else:
        suite = statement_pb2.ENVELOPE_SUITE_HPKE_P256_SHA256_AES256GCM
        sealed = HPKE.encrypt(private_key_der, transport_key, info)
    envelope = statement_pb2.TransportEnvelope(suite=suite, transport_key_id=key_id, ciphertext=sealed)
    return envelope.SerializeToString(deterministic=True)


# Section 8: the receipt


@dataclass(frozen=True)
class Receipt:
    """What a verified receipt says."""

    event: audit_pb2.AuditEvent
    details: audit_pb2.AuditDetails
    leaf_hash: bytes
    index: int
    tree_size: int
    root: bytes


def unbase64(text):
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("a line is no base64") from None
    require(base64.b64encode(value).decode() == text, "base64 is not canonical")
    return value


def number(text):
    require(re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII), "a number is malformed")
    return int(text)


def decode(kind, data):
    """A message in its one encoding, without unknown fields."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise Refused(f"no {kind.DESCRIPTOR.name}") from None
    message.DiscardUnknownFields()
    require(message.SerializeToString(deterministic=True) == data, "a message is not canonical")
    return message


def verify_receipt(file, *, transport_spki, origin):
    """Check a receipt offline: leaf, details, inclusion, signature."""
    receipt = verify_entry(file, transport_spki=transport_spki, origin=origin)
    require(receipt.event.type == audit_pb2.EVENT_TYPE_KEY_ARCHIVED, "no archived key")
    return receipt


def take_change(change, *, key_in_force, anchor, trust_domain, origin):
    """Section 6: return the SPKI of the transport key that follows the one in force, by the word of both."""
    begins = x509.load_der_x509_certificate(change.certificate.certificate).not_valid_before_utc.timestamp()
    key = check_transport_certificate(change.certificate, anchor=anchor, trust_domain=trust_domain, at=begins)
    for spki in (spki_of(key), key_in_force):
        event = verify_entry(change.proof, transport_spki=spki, origin=origin).event
    require(event.type == audit_pb2.EVENT_TYPE_TRANSPORT_KEY_ROTATED, "no rotation")
    require(event.transport_key_id == sha256(spki_of(key)), "the rotation to another key")
    return spki_of(key)


def verify_entry(file, *, transport_spki, origin):
    """Check that an entry of any type is in the log: leaf, details, inclusion, signature."""
    try:
        head, separator, note = file.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise Refused("the receipt is no text") from None
    lines = head.split("\n")
    framed = separator and len(lines) >= 3 and lines[0] == "c2sp.org/tlog-proof@v1"
    require(framed and lines[1].startswith("extra ") and lines[2].startswith("index "), "no receipt")
    logged = decode(audit_pb2.LoggedEvent, unbase64(lines[1].removeprefix("extra ")))
    index, siblings = number(lines[2].removeprefix("index ")), [unbase64(line) for line in lines[3:]]
    event = decode(audit_pb2.AuditEvent, logged.leaf)
    require(event.version == 1, "an entry of another version")
    require(len(logged.salt) == 16, "the salt is missing")
    require(sha256(logged.salt + logged.details) == event.details_sha256, "the details are others")
    size, root = verify_note(note, transport_spki=transport_spki, origin=origin)
    require(0 <= index < size and all(len(s) == 32 for s in siblings), "the proof is malformed")
    leaf_hash = sha256(b"\0" + logged.leaf)
    require(tree_root(leaf_hash, index, size, siblings) == root, "the leaf is not in the tree")
    details = decode(audit_pb2.AuditDetails, logged.details)
    return Receipt(event, details, leaf_hash, index, size, root)


def tree_root(leaf_hash, index, size, siblings):
    """The root that a proof leads to, from the top down as RFC 9162 §2.1.3.1 defines the path."""
    if size == 1:
        require(not siblings, "the proof is too long")
        return leaf_hash
    require(siblings, "the proof is too short")
    left_size = 1 << (size - 1).bit_length() - 1
    *rest, sibling = siblings
    if index < left_size:
        return sha256(b"\1" + tree_root(leaf_hash, index, left_size, rest) + sibling)
    return sha256(b"\1" + sibling + tree_root(leaf_hash, index - left_size, size - left_size, rest))


def verify_note(note, *, transport_spki, origin):
    """Return size and root of a checkpoint that the transport key signed."""
    body, separator, signature_lines = note.rpartition("\n\n")
    text = body + "\n"
    lines = text.split("\n")
    require(separator and signature_lines.endswith("\n") and len(lines) == 4, "no checkpoint")
    require(lines[0] == origin, "the checkpoint of another log")
    size, root = number(lines[1]), unbase64(lines[2])
    key = load_der_public_key(transport_spki)
    is_rsa = isinstance(key, rsa.RSAPublicKey)
    prefix = origin.encode() + b"\n\xffkeyark/rsa-pss-sha256/v1" if is_rsa else b""
    key_id = sha256(prefix + transport_spki)[:4]
    lines = [line.split(" ") for line in signature_lines[:-1].split("\n")]
    require(all(len(words) == 3 and words[0] == "\u2014" for words in lines), "no signature line")
    signatures = [unbase64(signature) for _, name, signature in lines if name == origin]
    mine = [signature[4:] for signature in signatures if signature[:4] == key_id]
    require(mine, "the checkpoint is not signed by the transport key")
    require(len(mine) == 1, "the checkpoint has two signatures of one key")
    for signature in mine:
        try:
            if is_rsa:
                key.verify(signature, text.encode(), PSS, hashes.SHA256())
            else:
                key.verify(signature, text.encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Refused("the checkpoint's signature does not verify") from None
    return size, root


# Section 9: the outcome


@dataclass(frozen=True)
class Request:
    """A signed statement, with the keys that stay here."""

    fields: dict
    statement: bytes
    signature: bytes
    encryption_key: object

    @property
    def enrollment_id(self):
        return enrollment_id(self.fields["request_id"], self.fields["caller"])


def check_receipt(receipt, request):
    """The receipt has to be for this enrollment, its keys and its owner."""
    fields = request.fields
    expected = {
        "enrollment_id": request.enrollment_id,
        "statement_sha256": sha256(request.statement),
        "signing_spki_sha256": sha256(fields["signing_spki"]),
        "encryption_spki_sha256": sha256(fields["encryption_spki"]),
    }
    for name, value in expected.items():
        require(getattr(receipt.event, name) == value, f"the receipt is for another {name}")
    for name in ("caller", "common_name", "email"):
        require(getattr(receipt.details, name) == fields[name], f"the receipt is for another {name}")


def check_certificates(pair, request, *, anchor, at):
    """Both certificates have to be for the two keys and their owner, under the CA."""
    signing, encryption = (
        x509.load_der_x509_certificate(der) for der in (pair.signing_certificate, pair.encryption_certificate)
    )
    chain = [x509.load_der_x509_certificate(der) for der in pair.chain]
    agrees = isinstance(request.encryption_key, ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey)
    encryption_usage = {"key_agreement"} if agrees else {"key_encipherment"}
    for certificate, spki, usage in (
        (signing, request.fields["signing_spki"], {"digital_signature", "content_commitment"}),
        (encryption, request.fields["encryption_spki"], encryption_usage),
    ):
        require(spki_of(certificate.public_key()) == spki, "a certificate is for another key")
        require_extensions(certificate, x509.SubjectAlternativeName, x509.KeyUsage)
        names = [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        require(names == [request.fields["common_name"]], "a certificate is for another name")
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = [x509.RFC822Name(request.fields["email"])]
        require(list(alternative) == addresses, "a certificate is for another address")
        require(usages(certificate) == usage, "a certificate is for another use")
        basic = [e.value for e in certificate.extensions if isinstance(e.value, x509.BasicConstraints)]
        require(not any(b.ca for b in basic), "a certificate is a CA's")
    paths = [check_path(certificate, chain, anchor, at)[1:] for certificate in (signing, encryption)]
    require(paths[0] == paths[1], "the certificates are of different issuers")
    return signing, encryption


def usages(certificate):
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    names += ("key_agreement", "key_cert_sign", "crl_sign")
    return {name for name in names if getattr(usage, name)}


# Sections 1, 2 and 10: the calls


class Client:
    """Enrolls with one RM."""

    def __init__(self, options):
        self.options = options
        identity = options.home / "identities" / options.identity
        anchor = (options.home / "trust-anchor.pem").read_bytes()
        certificate, key = ((identity / name).read_bytes() for name in ("cert.pem", "key.pem"))
        self.certificate = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        self.key = load_pem_private_key(key, None)
        self.anchor = x509.load_pem_x509_certificate(anchor)
        self.root = x509.load_pem_x509_certificates((options.home / "ca.pem").read_bytes())[-1]
        names = x509.load_pem_x509_certificate(certificate).extensions
        names = names.get_extension_for_class(x509.SubjectAlternativeName).value
        self.caller = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
        self.trust_domain = self.caller.removeprefix("spiffe://").split("/")[0]
        credentials = grpc.ssl_channel_credentials(anchor, key, certificate)
        name = [("grpc.ssl_target_name_override", f"rm.{self.trust_domain}")]
        self.channel = grpc.secure_channel(options.rm, credentials, options=name)
        self.stub = registration_pb2_grpc.RegistrationServiceStub(self.channel)

    def run(self):
        """Enroll once; return what came of it."""
        options = self.options
        asked = registration_pb2.GetEnrollmentFormRequest(profile=options.profile)
        form = self.stub.GetEnrollmentForm(asked, timeout=CALL_SECONDS).form
        require(form.trust_domain == self.trust_domain, "the form is of another trust domain")
        self.transport_key(form.transport_certificate)
        request = self.prepare(form)
        transport = form.transport_certificate if options.delivery == "along" else None
        answer, states = self.submit(request, transport), []
        states.append(registration_pb2.EnrollmentState.Name(answer.state))
        if answer.state == registration_pb2.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY:
            transport = answer.transport_certificate
            answer = self.submit(request, transport)
            states.append(registration_pb2.EnrollmentState.Name(answer.state))
        facts = self.accept(request, answer, self.transport_key(form.transport_certificate))
        asked = registration_pb2.GetEnrollmentRequest(request_id=request.fields["request_id"])
        recorded = self.stub.GetEnrollment(asked, timeout=CALL_SECONDS).enrollment
        require(recorded.certificates == answer.certificates, "the recorded outcome is another")
        again = self.submit(request, transport)
        for outcome in (recorded, again):  # the archive hears of the certificate in its own time
            outcome.ClearField("recoverability")
            outcome.ClearField("not_recoverable_reason")
        require(again == recorded, "sent again, the outcome is another")
        return {"states": states, **facts}

    def transport_key(self, message):
        return check_transport_certificate(
            message, anchor=self.anchor, trust_domain=self.trust_domain, at=time.time()
        )

    def prepare(self, form):
        """Make both key pairs, of the asked or the preferred types, and sign the statement."""
        signing_type = self.options.signing or _type_name(form.signing_key_types[0])
        encryption_type = self.options.encryption or _type_name(form.encryption_key_types[0])
        signing_key, encryption_key = GENERATORS[signing_type](), GENERATORS[encryption_type]()
        fields = {
            "trust_domain": self.trust_domain,
            "caller": self.caller,
            "request_id": new_request_id(),
            "profile": form.profile,
            "common_name": self.options.name,
            "email": self.options.email,
            "signing_spki": spki_of(signing_key.public_key()),
            "encryption_spki": spki_of(encryption_key.public_key()),
        }
        statement = encode_statement(**fields)
        return Request(fields, statement, sign_statement(signing_key, statement), encryption_key)

    def submit(self, request, transport):
        wrapped = b""
        if transport is not None:
            der = request.encryption_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            wrapped = wrap(der, self.transport_key(transport), request.statement)
        item = registration_pb2.EnrollmentRequest(
            statement=request.statement, signature=request.signature, wrapped_private_key=wrapped
        )
        message = registration_pb2.SubmitEnrollmentsRequest(items=[item], call=self.call(request.statement))
        (outcome,) = self.stub.SubmitEnrollments(message, timeout=CALL_SECONDS).outcomes
        if outcome.HasField("error"):
            raise ProtocolError(outcome.error)
        return outcome.enrollment

    def call(self, *statements):
        """The signed call that sends these statements now."""
        raw = encode_call(
            trust_domain=self.trust_domain, caller=self.caller, at=int(time.time()), statements=statements
        )
        return ceremony_pb2.SignedStatement(
            statement=raw, signature=sign_call(self.key, raw), certificate=self.certificate
        )

    def accept(self, request, answer, transport_key):
        """Believe an answer once certificates and receipt proved to be for the request."""
        require(answer.state == registration_pb2.ENROLLMENT_STATE_ISSUED, "the answer is no outcome")
        require(answer.enrollment_id == request.enrollment_id, "the answer is for another enrollment")
        signing, encryption = check_certificates(
            answer.certificates, request, anchor=self.root, at=time.time()
        )
        origin = f"{self.trust_domain}/drm"
        receipt = verify_receipt(answer.receipt, transport_spki=spki_of(transport_key), origin=origin)
        check_receipt(receipt, request)
        if self.options.out:
            (self.options.out / "receipt.tlog-proof").write_bytes(answer.receipt)
            (self.options.out / "statement.bin").write_bytes(request.statement)
        return {
            "enrollment_id": request.enrollment_id.hex(),
            "signing_serial": f"{signing.serial_number:x}",
            "encryption_serial": f"{encryption.serial_number:x}",
            "key_id": sha256(request.fields["encryption_spki"]).hex(),
            "log_index": receipt.index,
        }


class ProtocolError(Exception):
    """Section 10: a google.rpc.Status with its ErrorInfo."""

    def __init__(self, status):
        info = error_details_pb2.ErrorInfo()
        any(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR))
        super().__init__(status.message)
        self.facts = {"code": status.code, "reason": info.reason, "message": status.message}


def _type_name(key_type):
    return common_pb2.KeyType.Name(key_type).removeprefix("KEY_TYPE_")


def status_of(error):
    """The rich status of a failed call; only its code where no handler was reached."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=error.code().value[0], message=error.details())


def main():
    parser = argparse.ArgumentParser(description="Enrolls one person as docs/protocol.md says.")
    parser.add_argument("--rm", required=True, help="host:port")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--identity", default="client/enroller")
    parser.add_argument("--profile", default="user")
    parser.add_argument("--name", required=True)
    parser.add_argument("--email", required=True)
    parser.add_argument("--signing", choices=GENERATORS)
    parser.add_argument("--encryption", choices=GENERATORS)
    parser.add_argument("--delivery", choices=("along", "when-asked"), default="along")
    parser.add_argument("--out", type=Path, help="folder for the statement and the receipt")
    client = Client(parser.parse_args())
    try:
        print(json.dumps(client.run()))
    except (ProtocolError, grpc.RpcError) as error:
        failure = error if isinstance(error, ProtocolError) else ProtocolError(status_of(error))
        print(json.dumps({"error": failure.facts}))
        sys.exit(1)
    finally:
        client.channel.close()


if __name__ == "__main__":
    main()
