"""Which transport keys of the DRM are known, and which one is in force: the DRM's log itself tells of each change.

The newest known key alone signs new heads and gets new envelopes. From the moment that its successor is known, a key
proves nothing new, whether it is retired yet or not. A successor is believed on the word of the key before it: both
sign a head that contains the leaf which names the new key, and the internal CA certified the new key for the DRM::

    keys = FollowedTransportKeys(trust)
    keys.begin(certificate, at=now)  # the first one is trusted on first use
    keys.take(change)
    keys.check_offered(certificate, at=now)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from keyark.errors import KeyarkError, Kind
from keyark.identity.transport import TransportTrust
from keyark.keys.spki import encode_spki, key_id, public_key_id
from keyark.records.v1 import trust_pb2 as records
from keyark.transparency.checkpoint import CheckpointSignatureError, NoteVerifier, VerifiedHead
from keyark.transparency.receipts import ArchivalReceipt, ProvenLeaf, ReceiptVerifier
from keyark.v1.audit_pb2 import EventType, TransportKeyChange
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import Validity, load_certificate

KNOWN_KEY: Final = "transport_key_id"
"""Metadata of errors: the id (hexadecimal) of the newest key that is known."""

_T = TypeVar("_T")


class TransportKeyRetiredError(KeyarkError):
    """The transport key has a successor: it signs no new head and gets no new envelope any more."""

    reason = "TRANSPORT_KEY_RETIRED"
    kind = Kind.PRECONDITION


class TransportKeyUnprovenError(KeyarkError):
    """Nothing shows that the transport key followed the one that is known."""

    reason = "TRANSPORT_KEY_UNPROVEN"
    kind = Kind.PRECONDITION


class TransportKeyEndedError(KeyarkError):
    """Every certificate that is known of the transport key has ended, so it signs no new head."""

    reason = "TRANSPORT_KEY_ENDED"
    kind = Kind.PRECONDITION


class FollowedTransportKeys:
    """What one reader knows of the DRM's transport keys; keep ``record`` to go on from it."""

    def __init__(self, trust: TransportTrust, record: records.FollowedTransportKeys | None = None) -> None:
        self._trust = trust
        self._origin = f"{trust.trust_domain}/drm"
        self.record = record or records.FollowedTransportKeys()
        self._verifiers: dict[bytes, ReceiptVerifier] = {}
        self._seen: set[bytes] = set()

    @property
    def newest_id(self) -> bytes:
        """The id (32 bytes) of the key in force; empty before the first."""
        return key_id(self.record.keys[-1].public_key) if self.record.keys else b""

    @property
    def known_ids(self) -> set[bytes]:
        """The ids (32 bytes) of all known keys."""
        return {key_id(key.public_key) for key in self.record.keys}

    @property
    def public_keys(self) -> list[bytes]:
        """The SPKIs (DER) of all known keys, the newest first."""
        return [key.public_key for key in reversed(self.record.keys)]

    def begin(self, certificate: TransportCertificate, *, at: int) -> None:
        """Take the first key, whose certificate has to be good at ``at`` (seconds UTC), or a renewed certificate.

        Raises as TransportTrust does; a certificate of a key that is not known changes nothing.
        """
        if not self.record.keys:
            self._trust.verify(certificate, at)
            self._add(certificate, since_us=0)
        elif certificate.certificate not in self._seen:
            self._know(self._certified(certificate), certificate)

    def pin(self, certificates: Sequence[TransportCertificate]) -> None:
        """Take keys on an operator's word, the newest last: all where none is known, else those after the last known.

        Keys that were followed further than the list goes stay; a list that names no known key is passed over.
        Raises as TransportTrust does.
        """
        keys = [(self._certified(certificate), certificate) for certificate in certificates]
        known = [place for place, (public_key, _) in enumerate(keys) if self._is_known(public_key)]
        if self.record.keys and not known:
            return
        for public_key, certificate in keys[known[-1] if known else 0 :]:
            if not self._know(public_key, certificate):
                self._add(certificate, since_us=0)

    def restart(self, certificate: TransportCertificate, *, at: int) -> None:
        """Put a new key in force on an operator's word, for a log that came from a backup; ``at`` is now, seconds UTC.

        What the keys before it signed in the log that was lost proves nothing new from then on. Raises
        TransportKeyRetiredError for a key that is known, or that was not certified later than those, and as
        TransportTrust does.
        """
        public_key, begins = self._trust.verify(certificate, at), _validity(certificate).not_before
        if self._is_known(public_key) or any(begins <= key.certified for key in self.record.keys):
            raise TransportKeyRetiredError(
                f"Transport key {key_id(public_key).hex()} may have signed the lost log, since it is not "
                "newer than the keys that did. Rotate the restored DRM's transport key, then confirm the new "
                "one.",
                metadata={KNOWN_KEY: self.newest_id.hex()},
            )
        self._add(certificate, since_us=0)

    def take(
        self, change: TransportKeyChange, check_head: Callable[[VerifiedHead], None] = lambda _: None
    ) -> None:
        """Take up a change of the key in force; one that is known changes nothing.

        ``check_head`` raises where the head of the proof does not belong to the log that is followed. Raises
        TransportKeyUnprovenError where neither the key in force nor a younger certificate speaks for the new one, and
        the errors of certificates and proofs.
        """
        public_key = self._certified(change.certificate)
        if self._know(public_key, change.certificate):
            return
        proven = self._verifier(public_key).verify_leaf(change.proof)
        named = (proven.event.type, proven.event.transport_key_id)
        if named != (EventType.EVENT_TYPE_TRANSPORT_KEY_ROTATED, key_id(public_key)):
            raise self._unproven("The leaf does not say that this transport key came into force.")
        self._check_handover(proven, _validity(change.certificate).not_before)
        check_head(proven.head)
        self._add(change.certificate, since_us=proven.event.time_us)

    def check_offered(self, certificate: TransportCertificate, *, at: int) -> bytes:
        """Return the SPKI (DER) of a certificate that envelopes go to: of the key in force, and good at ``at``.

        Raises TransportKeyRetiredError, TransportKeyUnprovenError, and what TransportTrust does.
        """
        return self._check_newest(self._trust.verify(certificate, at), certificate)

    def _check_newest(self, public_key: bytes, certificate: TransportCertificate) -> bytes:
        if public_key == self.record.keys[-1].public_key:
            self._know(public_key, certificate)
            return public_key
        if self._is_known(public_key):
            raise TransportKeyRetiredError(
                f"Transport key {key_id(public_key).hex()} was replaced by {self.newest_id.hex()}, so no key "
                "is wrapped to it. Fetch the form again. If it offers the same key again, do not trust the "
                "RM.",
                metadata={KNOWN_KEY: self.newest_id.hex()},
            )
        raise self._unproven(f"Transport key {key_id(public_key).hex()} is not known here.")

    def check_is_newest(self, certificate: TransportCertificate) -> bytes:
        """Return the SPKI (DER) of a certificate of the key in force, ended or not; raises as ``check_offered``."""
        return self._check_newest(self._certified(certificate), certificate)

    def verify_receipt(self, receipt: bytes) -> tuple[ArchivalReceipt, records.FollowedTransportKey]:
        """Return what a receipt proves, and the known key that signed it; raises as ``ReceiptVerifier.verify`` does."""
        return self._under_known_key(lambda verifier: verifier.verify(receipt))

    def verify_leaf(self, proof: bytes) -> tuple[ProvenLeaf, records.FollowedTransportKey]:
        """Return the leaf that a tlog-proof proves, and the known key that signed its head."""
        return self._under_known_key(lambda verifier: verifier.verify_leaf(proof))

    def verify_head(self, note: bytes) -> tuple[VerifiedHead, records.FollowedTransportKey]:
        """Return the head of a signed note, and the known key that signed it."""
        return self._under_known_key(lambda verifier: VerifiedHead(verifier.verify_note(note), note))

    def is_in_force(self, key: records.FollowedTransportKey) -> bool:
        """Say whether a known key is the newest one."""
        return key.public_key == self.record.keys[-1].public_key

    def check_in_force(self, key: records.FollowedTransportKey, *, at: int) -> None:
        """Raise TransportKeyEndedError where the last certificate of a known key ended before ``at`` (seconds UTC)."""
        if key.ends < at:
            raise TransportKeyEndedError(
                f"The certificate of transport key {key_id(key.public_key).hex()} has ended, so its new "
                "signatures are not accepted. Renew the certificate (`keyark transport-key renew`) or rotate "
                "the key."
            )

    def superseded_us(self, key: records.FollowedTransportKey) -> int | None:
        """Return since when a known key has a successor, microseconds UTC; None while it has none."""
        keys = list(self.record.keys)
        position = [known.public_key for known in keys].index(key.public_key)
        if position + 1 == len(keys):
            return None
        successor = keys[position + 1]
        return successor.since_us or successor.certified * 1_000_000

    def _check_handover(self, proven: ProvenLeaf, certified: int) -> None:
        """Raise unless the key in force signed the head too, or was lost and this key was certified after it."""
        if not self.record.keys:
            return
        newest = self.record.keys[-1]
        try:
            NoteVerifier.from_public_key(self._origin, newest.public_key).verify(proven.note)
        except CheckpointSignatureError:
            if certified <= newest.certified:  # of two keys of one second, either could pass for the younger
                raise self._unproven(
                    "The transport key in force did not sign the handover to this key, and the certificate "
                    "of this key is not newer."
                ) from None

    def _certified(self, certificate: TransportCertificate) -> bytes:
        """Return the SPKI of a certificate that the internal CA signed, ended or not."""
        return self._trust.verify(certificate, _validity(certificate).not_before)

    def _know(self, public_key: bytes, certificate: TransportCertificate) -> bool:
        """Say whether a key is known, and note that it was certified anew."""
        for key in self.record.keys:
            if key.public_key == public_key:
                validity = _validity(certificate)
                key.certified = max(key.certified, validity.not_before)
                key.ends = max(key.ends, validity.not_after)
                self._seen.add(certificate.certificate)
                return True
        return False

    def _is_known(self, public_key: bytes) -> bool:
        return any(key.public_key == public_key for key in self.record.keys)

    def _add(self, certificate: TransportCertificate, *, since_us: int) -> None:
        """Put the key of a verified certificate in force."""
        validity = _validity(certificate)
        self.record.keys.add(
            public_key=encode_spki(load_certificate(certificate.certificate).public_key()),
            since_us=since_us,
            certified=validity.not_before,
            ends=validity.not_after,
        )
        self._seen = {certificate.certificate}

    def _verifier(self, public_key: bytes) -> ReceiptVerifier:
        if public_key not in self._verifiers:
            self._verifiers[public_key] = ReceiptVerifier(self._origin, public_key)
        return self._verifiers[public_key]

    def _under_known_key(
        self, verify: Callable[[ReceiptVerifier], _T]
    ) -> tuple[_T, records.FollowedTransportKey]:
        for key in reversed(self.record.keys):
            try:
                return verify(self._verifier(key.public_key)), key
            except CheckpointSignatureError as error:
                refusal = error  # it may be the signature of another transport key
        if not self.record.keys:
            raise self._unproven("No transport key is known yet.")
        refusal.metadata[KNOWN_KEY] = self.newest_id.hex()
        raise refusal

    def _unproven(self, what: str) -> TransportKeyUnprovenError:
        return TransportKeyUnprovenError(
            f"{what} Fetch the changes of the transport key. If they do not lead to this key, do not "
            "trust their sender.",
            metadata={KNOWN_KEY: self.newest_id.hex()},
        )


def certified_key_id(certificate: TransportCertificate) -> bytes:
    """Return the id of the key in a transport certificate, nothing of it verified."""
    return public_key_id(load_certificate(certificate.certificate).public_key())


def _validity(certificate: TransportCertificate) -> Validity:
    return Validity.of(load_certificate(certificate.certificate))
