"""The crypto floor: CPU time of the unavoidable primitives of one enrollment, alone, in one thread.

Two verifications of the statement, one opening, one match check, one storage seal, two certificate signatures; and per
batch one checkpoint signature and two verifications. Everything else is what keyark adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.custody.envelopes import TransportKey, TransportPublicKey, seal_to_transport
from keyark.custody.matching import prove_match
from keyark.custody.storage import StoragePrivateKey
from keyark.keys.key_types import generate, generate_signing
from keyark.keys.signatures import sign_message, verify_message
from keyark.keys.spki import encode_spki
from keyark.load.planning.suites import KeySuite

ROUNDS: Final = 200
MESSAGE: Final = bytes(600)


@dataclass(frozen=True, kw_only=True)
class CryptoFloor:
    """Microseconds of CPU: by primitive, and of one enrollment in a batch of this mean size."""

    primitives: dict[str, float]
    batch_mean: float

    @property
    def per_enrollment(self) -> float:
        """CPU of one enrollment, microseconds."""
        p = self.primitives
        alone = 2 * p["statement_verify"] + p["open"] + p["match"] + p["seal"] + 2 * p["certificate_sign"]
        return alone + (p["checkpoint_sign"] + 2 * p["checkpoint_verify"]) / self.batch_mean


def measure_floor(suite: KeySuite, *, batch_mean: float) -> CryptoFloor:
    """Measure each primitive with `cryptography`, as the services call it."""
    signing, ca, transport = (generate_signing(t) for t in (suite.signing, suite.ca, suite.transport))
    encryption, storage = generate(suite.encryption), StoragePrivateKey.generate()
    pkcs8 = encryption.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    spki = encode_spki(encryption.public_key())
    digest, signature = bytes(32), sign_message(signing, MESSAGE)
    checkpoint_signature = sign_message(transport, MESSAGE)
    public_key = TransportPublicKey.from_spki(encode_spki(transport.public_key()))
    envelope = seal_to_transport(pkcs8, transport_public_key=public_key, statement_sha256=digest)
    opener, sealer = TransportKey(transport), storage.public_key
    work: dict[str, Callable[[], object]] = {
        "statement_verify": lambda: verify_message(signing.public_key(), signature, MESSAGE),
        "open": lambda: opener.open(envelope, digest),
        "match": lambda: prove_match(pkcs8, spki),
        "seal": lambda: sealer.encrypt(pkcs8, digest),
        "certificate_sign": lambda: sign_message(ca, MESSAGE),
        "checkpoint_sign": lambda: sign_message(transport, MESSAGE),
        "checkpoint_verify": lambda: verify_message(transport.public_key(), checkpoint_signature, MESSAGE),
    }
    return CryptoFloor(primitives={name: _cpu(fn) for name, fn in work.items()}, batch_mean=batch_mean)


def _cpu(fn: Callable[[], object]) -> float:
    """Microseconds of this thread's CPU per call, after a first one."""
    fn()
    started = time.thread_time()
    for _ in range(ROUNDS):
        fn()
    return (time.thread_time() - started) / ROUNDS * 1e6
