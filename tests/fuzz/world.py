"""The deployment that the seeds belong to: its keys follow from small numbers, what was signed lies in ``world/``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.custody.envelopes import TransportKey
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.spki import encode_spki
from keyark.statements.approvals import OfficerTrust
from keyark.statements.calls import CallTrust
from keyark.statements.ceremonies import AgentTrust
from keyark.statements.enrollment import Statement, parse_statement
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import load_certificates

FOLDER = Path(__file__).with_name("world")
NOW = 1_800_000_000
INTERNAL, TRANSPORT, PERSON, SIGNING, ENCRYPTION, LOG = range(101, 107)


def ec_key(number: int) -> ec.EllipticCurvePrivateKey:
    """A P-256 key that is the same every time."""
    return ec.derive_private_key(number, ec.SECP256R1())


@dataclass(frozen=True, kw_only=True)
class World:
    """What parsers hold foreign input against."""

    now: int
    internal: x509.Certificate
    transport_file: Path
    transport_key: TransportKey
    transport_certificate: TransportCertificate
    witness_key: Ed25519PrivateKey
    log_spki: bytes
    statement: Statement
    signature: bytes
    encryption_spkis: list[bytes]
    agents: AgentTrust

    def signed(self, kind: str) -> SignedStatement:
        """A person's good words of a kind: call, approval, ceremony or decision."""
        return SignedStatement.FromString((FOLDER / f"{kind}.signed").read_bytes())

    def calls(self) -> CallTrust:
        """Whose calls count; nothing is remembered."""
        return CallTrust(**self._trust())

    def officers(self) -> OfficerTrust:
        """Whose approvals count."""
        return OfficerTrust(**self._trust())

    def _trust(self) -> dict[str, Any]:
        anchors = [self.internal]
        return {"trust_domain": "example.org", "anchors": anchors, "revoked": RevokedIdentities(anchors)}


@cache
def world() -> World:
    """Read it once."""
    internal = x509.load_der_x509_certificate((FOLDER / "internal.der").read_bytes())
    statement = parse_statement((FOLDER / "statement.bin").read_bytes())
    return World(
        now=NOW,
        internal=internal,
        transport_file=FOLDER / "transport.pem",
        transport_key=TransportKey(ec_key(TRANSPORT)),
        transport_certificate=TransportCertificate(
            certificate=load_certificates(FOLDER / "transport.pem")[0].public_bytes(Encoding.DER),
            chain=[(FOLDER / "internal.der").read_bytes()],
        ),
        witness_key=Ed25519PrivateKey.from_private_bytes(b"\x07" * 32),
        log_spki=encode_spki(ec_key(TRANSPORT).public_key()),
        statement=statement,
        signature=(FOLDER / "signature.bin").read_bytes(),
        encryption_spkis=[path.read_bytes() for path in sorted(FOLDER.glob("encryption-*.spki"))],
        agents=AgentTrust(
            trust_domain="example.org", anchors=[internal], revoked=RevokedIdentities([internal])
        ),
    )
