"""The crypto floor: CPU time of the unavoidable primitives of one enrollment, alone, in one thread.

Of each statement three verifications, since RM, DRM and CM trust none of the others; the caller's signature of a call,
verified three times as well; one opening, one match check (with the primality of RSA keys), one storage seal, two
certificate signatures, and one verification of the CA's signature at linking; per batch one checkpoint signature and
two verifications. Everything else is what keyark adds.

One sample says little: the same code read between 600 and 1,300 microseconds within an hour on a shared machine. So
samples are taken before, between and after the parts of a run, on every CPU; what counts is their median, and the
spread of the samples says how much to believe of it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.custody.envelopes import TransportKey, TransportPublicKey, seal_to_transport
from keyark.custody.matching import prove_match
from keyark.custody.storage import StoragePrivateKey
from keyark.keys.key_types import KeyType, generate, generate_signing
from keyark.keys.signatures import sign_message, verify_message
from keyark.keys.spki import encode_spki
from keyark.load.planning.suites import KeySuite

ROUNDS: Final = 100
MESSAGE: Final = bytes(600)


@dataclass(frozen=True, kw_only=True)
class CryptoFloor:
    """Microseconds of CPU: by primitive, and of one enrollment in a call and a batch of these mean sizes."""

    primitives: Mapping[str, float]
    batch_mean: float
    items_per_call: int

    @property
    def per_enrollment(self) -> float:
        """CPU of one enrollment, microseconds."""
        p = self.primitives
        alone = 3 * p["statement_verify"] + p["open"] + p["match"] + p["seal"]
        alone += 2 * p["certificate_sign"] + p["certificate_verify"]
        per_call = 3 * p["caller_verify"] / self.items_per_call
        return alone + per_call + (p["checkpoint_sign"] + 2 * p["checkpoint_verify"]) / self.batch_mean


class FloorMeter:
    """Takes samples of each primitive, as the services call them through `cryptography`."""

    def __init__(self, suite: KeySuite) -> None:
        self._work = _primitives(suite)
        self._samples: list[dict[str, float]] = []

    def sample(self) -> None:
        """Measure every primitive once on each CPU that this process may use."""
        before = os.sched_getaffinity(0)
        try:
            for cpu in sorted(before):
                os.sched_setaffinity(0, {cpu})
                self._samples.append({name: _cpu(work) for name, work in self._work.items()})
        finally:
            os.sched_setaffinity(0, before)

    def floor(self, *, batch_mean: float, items_per_call: int) -> CryptoFloor:
        """Return the floor from the median of each primitive."""
        medians = {name: statistics.median(one[name] for one in self._samples) for name in self._work}
        return CryptoFloor(primitives=medians, batch_mean=batch_mean, items_per_call=items_per_call)

    def spread(self, floor: CryptoFloor) -> float:
        """Return how far the floors of single samples lie apart, as a share of the median floor."""
        each = [replace(floor, primitives=sample).per_enrollment for sample in self._samples]
        return (max(each) - min(each)) / floor.per_enrollment


def _primitives(suite: KeySuite) -> dict[str, Callable[[], object]]:
    signing, ca, transport = (generate_signing(t) for t in (suite.signing, suite.ca, suite.transport))
    caller = generate_signing(KeyType.EC_P256)
    encryption, storage = generate(suite.encryption), StoragePrivateKey.generate()
    pkcs8 = encryption.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    spki = encode_spki(encryption.public_key())
    digest, signature = bytes(32), sign_message(signing, MESSAGE)
    caller_signature, ca_signature = sign_message(caller, MESSAGE), sign_message(ca, MESSAGE)
    checkpoint_signature = sign_message(transport, MESSAGE)
    public_key = TransportPublicKey.from_spki(encode_spki(transport.public_key()))
    envelope = seal_to_transport(pkcs8, transport_public_key=public_key, statement_sha256=digest)
    opener, sealer = TransportKey(transport), storage.public_key
    return {
        "statement_verify": lambda: verify_message(signing.public_key(), signature, MESSAGE),
        "caller_verify": lambda: verify_message(caller.public_key(), caller_signature, MESSAGE),
        "open": lambda: opener.open(envelope, digest),
        "match": lambda: prove_match(pkcs8, spki),
        "seal": lambda: sealer.encrypt(pkcs8, digest),
        "certificate_sign": lambda: sign_message(ca, MESSAGE),
        "certificate_verify": lambda: verify_message(ca.public_key(), ca_signature, MESSAGE),
        "checkpoint_sign": lambda: sign_message(transport, MESSAGE),
        "checkpoint_verify": lambda: verify_message(transport.public_key(), checkpoint_signature, MESSAGE),
    }


def _cpu(fn: Callable[[], object]) -> float:
    """Microseconds of this thread's CPU per call, after a first one."""
    fn()
    started = time.thread_time()
    for _ in range(ROUNDS):
        fn()
    return (time.thread_time() - started) / ROUNDS * 1e6
