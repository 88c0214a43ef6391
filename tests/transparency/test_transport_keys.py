"""P5, P6: one transport key is in force, the log tells of the next one, and the one before proves nothing new."""

from __future__ import annotations

import pytest

from keyark.errors import KeyarkError
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType
from keyark.keys.spki import key_id
from keyark.records.v1.trust_pb2 import FollowedTransportKeys as Record
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import format_proof
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, TransportKeyChange
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import Validity, encode_certificate
from tests.support.keys.pki import DAY, NOW, TRUST_DOMAIN, internal_ca, private_key, spki

ROTATED = EventType.EVENT_TYPE_TRANSPORT_KEY_ROTATED
RETIRED = EventType.EVENT_TYPE_TRANSPORT_KEY_RETIRED


def certificate(
    number: int, *, begins: int | None = None, role: str = "drm/transport"
) -> TransportCertificate:
    """The certificate of transport key ``number``, which lives for 30 days from day ``number``."""
    start, identity = NOW + number * DAY if begins is None else begins, SpiffeId(TRUST_DOMAIN, role)
    issued = issue_identity(
        internal_ca(),
        request_identity(private_key(KeyType.EC_P256, number), identity),
        identity=identity,
        validity=Validity.starting(start, lifetime_seconds=30 * DAY),
    )
    return TransportCertificate(certificate=encode_certificate(issued))


def entry_proof(
    number: int, *signers: int, event_type: EventType.ValueType = ROTATED, time: int | None = None
) -> bytes:
    """The leaf about key ``number`` in a log of its own, whose head the keys ``signers`` sign."""
    at = NOW + number * DAY if time is None else time
    event = AuditEvent(version=1, type=event_type, time_us=at * 1_000_000)
    event.transport_key_id = key_id(spki(KeyType.EC_P256, number))
    logged = new_event(event, AuditDetails())
    head = Checkpoint(f"{TRUST_DOMAIN}/drm", 1, leaf_hash(logged.leaf))
    keys = [NoteSigner.from_private_key(head.origin, private_key(KeyType.EC_P256, n)) for n in signers]
    note = keys[0].sign(head) + b"".join(key.signature_line(head) for key in keys[1:])
    return format_proof(extra=logged.SerializeToString(), index=0, proof=[], checkpoint=note)


def change(number: int, *signers: int, **values: object) -> TransportKeyChange:
    """How the log shows that key ``number`` came into force."""
    return TransportKeyChange(
        proof=entry_proof(number, *signers), certificate=values.get("certificate", certificate(number))
    )


def following(*numbers: int) -> FollowedTransportKeys:
    """A reader that met the first key and was shown the others."""
    keys = FollowedTransportKeys(
        TransportTrust(anchors=[internal_ca().certificate], trust_domain=TRUST_DOMAIN)
    )
    first, *others = numbers
    keys.begin(certificate(first), at=NOW + first * DAY)
    before = first
    for number in others:
        keys.take(change(number, number, before))
        before = number
    return keys


def refusal(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(KeyarkError) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return caught.value.reason


def test_the_key_that_both_keys_signed_for_is_the_only_one_that_envelopes_go_to():
    keys = following(1, 2, 3)
    assert keys.check_offered(certificate(3), at=NOW + 4 * DAY) == spki(KeyType.EC_P256, 3)
    for older in (1, 2):
        assert refusal(keys.check_offered, certificate(older), at=NOW + 4 * DAY) == "TRANSPORT_KEY_RETIRED"
    assert refusal(keys.check_offered, certificate(4), at=NOW + 4 * DAY) == "TRANSPORT_KEY_UNPROVEN"
    assert refusal(keys.check_offered, certificate(3), at=NOW + 40 * DAY) == "CERTIFICATE_EXPIRED"


def test_what_is_known_outlives_a_restart():
    keys = following(1, 2)
    record = Record.FromString(keys.record.SerializeToString())
    again = FollowedTransportKeys(
        TransportTrust(anchors=[internal_ca().certificate], trust_domain=TRUST_DOMAIN), record
    )
    assert refusal(again.check_offered, certificate(1), at=NOW + 4 * DAY) == "TRANSPORT_KEY_RETIRED"
    again.take(change(3, 3, 2))
    assert again.newest_id == key_id(spki(KeyType.EC_P256, 3))


def test_changes_that_are_known_are_passed_over():
    keys = following(1, 2, 3)
    for known in (change(2, 2, 1), change(3, 3, 2)):
        keys.take(known)
    assert len(keys.record.keys) == 3


@pytest.mark.parametrize(
    "forged",
    [
        change(
            1, 1, certificate=certificate(1, begins=NOW - DAY // 2)
        ),  # the thief signs for the retired key alone
        change(
            1, 1, certificate=certificate(1, begins=NOW + 3 * DAY)
        ),  # its certificate was renewed in the very second in which the key in force was certified
        change(1, 1, 4),
        TransportKeyChange(proof=entry_proof(1, 1, 3, event_type=RETIRED), certificate=certificate(1)),
        TransportKeyChange(proof=entry_proof(4, 1, 3), certificate=certificate(1)),
        TransportKeyChange(
            proof=entry_proof(1, 3), certificate=certificate(1)
        ),  # without the new key's own signature
        TransportKeyChange(proof=entry_proof(1, 1, 3), certificate=certificate(1, role="agent/alice")),
        TransportKeyChange(proof=entry_proof(1, 1, 3)),
        TransportKeyChange(certificate=certificate(1)),
    ],
)
def test_a_retired_key_does_not_come_back_to_a_reader_that_never_knew_it(forged):
    """The reader met the deployment after the rotation; the thief has the older key, and its certificate."""
    keys = following(3)
    with pytest.raises(KeyarkError):
        keys.take(forged)
    assert keys.public_keys == [spki(KeyType.EC_P256, 3)]


def test_a_signature_line_that_anybody_may_add_hands_nothing_over():
    """The key in force signed that head, and no leaf in it names the other key."""
    keys = following(1)
    other = TransportKeyChange(proof=entry_proof(1, 2, 1), certificate=certificate(2))
    assert refusal(keys.take, other) == "TRANSPORT_KEY_UNPROVEN"


def test_after_a_lost_key_a_younger_certificate_speaks_for_the_next_one():
    keys = following(1)
    keys.take(change(2, 2))
    assert keys.newest_id == key_id(spki(KeyType.EC_P256, 2))


def test_a_certificate_that_was_renewed_meanwhile_is_younger_than_one_that_waited():
    keys = following(1)
    keys.begin(certificate(1, begins=NOW + 3 * DAY), at=NOW + 3 * DAY)
    assert refusal(keys.take, change(2, 2)) == "TRANSPORT_KEY_UNPROVEN"
    keys.take(change(2, 2, 1))
    assert keys.newest_id == key_id(spki(KeyType.EC_P256, 2))


def test_a_head_that_belongs_to_another_log_changes_nothing():
    def other_log(_: object) -> None:
        raise KeyarkError("another log")

    keys = following(1)
    with pytest.raises(KeyarkError, match="another log"):
        keys.take(change(2, 2, 1), other_log)
    assert len(keys.record.keys) == 1


def test_a_key_whose_certificates_ended_signs_nothing_new_until_one_is_renewed():
    keys = following(1)
    (known,) = keys.record.keys
    keys.check_in_force(known, at=NOW + 20 * DAY)
    assert refusal(keys.check_in_force, known, at=NOW + 40 * DAY) == "TRANSPORT_KEY_ENDED"
    keys.begin(certificate(1, begins=NOW + 20 * DAY), at=NOW + 20 * DAY)
    keys.check_in_force(known, at=NOW + 40 * DAY)


def test_an_operators_list_leads_on_and_never_back():
    keys = following(1, 2)
    keys.pin([certificate(1)])
    keys.pin([certificate(7)])  # of another deployment, or of one that nothing leads to
    assert keys.newest_id == key_id(spki(KeyType.EC_P256, 2))
    keys.pin([certificate(1), certificate(2), certificate(3)])
    assert keys.newest_id == key_id(spki(KeyType.EC_P256, 3))


def test_after_a_restore_only_the_key_that_the_operator_names_proves_anything_new():
    """The keys of before signed the log that was lost, too; a change that one of them signed leads nowhere."""
    keys = following(1, 2)
    for known in (certificate(1), certificate(2), certificate(3, begins=NOW + 2 * DAY)):
        assert refusal(keys.restart, known, at=NOW + 3 * DAY) == "TRANSPORT_KEY_RETIRED"
    assert refusal(keys.restart, certificate(4), at=NOW + 40 * DAY) == "CERTIFICATE_EXPIRED"
    keys.restart(certificate(4), at=NOW + 4 * DAY)
    assert not keys.is_in_force(keys.record.keys[1])
    assert refusal(keys.take, change(3, 3, 2)) == "TRANSPORT_KEY_UNPROVEN"
    keys.take(change(4, 4, 2))
    assert keys.newest_id == key_id(spki(KeyType.EC_P256, 4))


def test_since_when_a_key_has_a_successor():
    keys = following(1, 2)
    first, second = keys.record.keys
    assert keys.superseded_us(first) == (NOW + 2 * DAY) * 1_000_000
    assert keys.superseded_us(second) is None
