"""P3, P6: a receipt proves one archived key in the DRM's signed log, to anyone, and nothing else passes for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import KeyarkError
from keyark.transparency.checkpoint import (
    Checkpoint,
    CheckpointOriginError,
    CheckpointSignatureError,
    NoteSigner,
)
from keyark.transparency.events import EventError, new_event
from keyark.transparency.merkle import InclusionProofError, leaf_hash
from keyark.transparency.receipts import (
    HEADER,
    ReceiptFormatError,
    ReceiptMismatchError,
    ReceiptVerifier,
    TlogProof,
    check_receipt,
    format_proof,
    parse_proof,
)
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from tests.support.stories.transparency import (
    ORIGIN,
    OWNER,
    append,
    archived_event,
    ecdsa_key,
    ed25519_key,
    entry,
    opened_log,
    receipt_of,
)

SIGNER = NoteSigner.from_private_key(ORIGIN, ecdsa_key())


def verifier(origin: str = ORIGIN) -> ReceiptVerifier:
    return ReceiptVerifier(origin, SIGNER.public_key_der)


async def receipts(count: int = 7) -> list[bytes]:
    log, store = await opened_log()
    await append(log, store, *(entry(number) for number in range(count)))
    return [await receipt_of(log, number + 1) for number in range(count)]


def lone_receipt(logged: LoggedEvent, *, extra: bytes | None = None, signer: NoteSigner = SIGNER) -> bytes:
    """A receipt from a log that holds this leaf alone, properly signed."""
    note = signer.sign(Checkpoint(signer.origin, 1, leaf_hash(logged.leaf)))
    return format_proof(
        extra=logged.SerializeToString() if extra is None else extra, index=0, proof=[], checkpoint=note
    )


async def test_every_receipt_of_a_batch_verifies_under_one_checkpoint():
    check = verifier()
    for number, receipt in enumerate(await receipts()):
        verified = check.verify(receipt)
        assert verified.index == number + 1
        assert verified.leaf == entry(number).leaf
        assert verified.event.enrollment_id == archived_event(number).enrollment_id
        assert verified.details.email == OWNER["email"]
        assert verified.checkpoint.size == 8
        assert verified.note in receipt


async def test_a_receipt_is_text_in_the_published_format():
    receipt = (await receipts(1))[0]
    lines = receipt.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 1"
    assert lines[3:6] == [lines[3], "", ORIGIN]


async def test_any_flipped_bit_gives_a_typed_error():
    receipt = (await receipts(3))[1]
    check = verifier()
    check.verify(receipt)
    for bit in range(len(receipt) * 8):
        flipped = bytearray(receipt)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyarkError):
            check.verify(bytes(flipped))


async def test_any_shortened_receipt_gives_a_typed_error():
    receipt = (await receipts(3))[1]
    check = verifier()
    for size in range(len(receipt)):
        with pytest.raises(KeyarkError):
            check.verify(receipt[:size])


async def test_a_receipt_under_another_key_or_of_another_log_is_refused():
    logged = entry()
    with pytest.raises(CheckpointSignatureError):
        verifier().verify(lone_receipt(logged, signer=NoteSigner.from_private_key(ORIGIN, ed25519_key())))
    with pytest.raises(CheckpointOriginError):
        verifier().verify(
            lone_receipt(logged, signer=NoteSigner.from_private_key("example.org/rm", ecdsa_key()))
        )


async def test_the_proof_of_another_leaf_is_refused():
    one, other = (parse_proof(receipt) for receipt in (await receipts(4))[1:3])
    for changed in (
        TlogProof(one.extra, other.index, other.proof, other.checkpoint),
        TlogProof(one.extra, other.index, one.proof, one.checkpoint),
        TlogProof(one.extra, one.index, other.proof, one.checkpoint),
        TlogProof(one.extra, one.index, (*one.proof, bytes(32)), one.checkpoint),
    ):
        with pytest.raises(InclusionProofError):
            verifier().verify(
                format_proof(
                    extra=changed.extra,
                    index=changed.index,
                    proof=changed.proof,
                    checkpoint=changed.checkpoint,
                )
            )


async def test_a_checkpoint_that_verified_once_does_not_excuse_another_leaf():
    check = verifier()
    receipt = (await receipts(3))[1]
    check.verify(receipt)
    parsed = parse_proof(receipt)
    forged = format_proof(
        extra=entry(99).SerializeToString(),
        index=parsed.index,
        proof=parsed.proof,
        checkpoint=parsed.checkpoint,
    )
    with pytest.raises(InclusionProofError):
        check.verify(forged)


def test_of_many_checkpoints_only_some_are_kept():
    check = verifier()
    for number in range(40):
        check.verify(lone_receipt(entry(number)))
    assert len(check._verified) == 16
    check.verify(lone_receipt(entry(0)))


def altered(**changes) -> AuditEvent:
    event = archived_event()
    for name, value in changes.items():
        setattr(event, name, value)
    return event


@pytest.mark.parametrize(
    "event",
    [
        altered(type=EventType.EVENT_TYPE_KEY_CERTIFIED),
        altered(type=EventType.EVENT_TYPE_PAIR_ISSUED),
        altered(enrollment_id=b""),
        altered(statement_sha256=b""),
        altered(signing_spki_sha256=b""),
        altered(encryption_spki_sha256=b""),
        altered(storage_key_id=b""),
    ],
)
def test_the_entry_of_anything_but_an_archived_key_is_no_receipt(event):
    with pytest.raises(ReceiptFormatError):
        verifier().verify(lone_receipt(new_event(event, AuditDetails(**OWNER))))


def test_other_details_than_those_bound_and_erased_ones_are_refused():
    logged = entry()
    other = LoggedEvent(
        leaf=logged.leaf, salt=logged.salt, details=AuditDetails(caller="x").SerializeToString()
    )
    with pytest.raises(EventError):
        verifier().verify(lone_receipt(other))
    with pytest.raises(ReceiptFormatError):
        verifier().verify(lone_receipt(LoggedEvent(leaf=logged.leaf)))


def test_an_entry_with_unknown_fields_or_in_another_encoding_is_refused():
    logged = entry()
    unknown = b"\xf8\x3f\x01"
    for extra in (logged.SerializeToString() + unknown, logged.SerializeToString() * 2, b"\xff"):
        with pytest.raises(EventError):
            verifier().verify(lone_receipt(logged, extra=extra))
    newer = LoggedEvent(leaf=logged.leaf + unknown, salt=logged.salt, details=logged.details)
    with pytest.raises(EventError, match="not known here"):
        verifier().verify(lone_receipt(newer))


EXPECTED = {
    "enrollment_id": archived_event().enrollment_id,
    "statement_sha256": archived_event().statement_sha256,
    "signing_spki_sha256": archived_event().signing_spki_sha256,
    "encryption_spki_sha256": archived_event().encryption_spki_sha256,
    **OWNER,
}


def test_a_receipt_for_this_enrollment_passes():
    check_receipt(verifier().verify(lone_receipt(entry())), **EXPECTED)


@pytest.mark.parametrize("field", EXPECTED)
def test_a_receipt_for_anything_else_is_refused_and_the_field_named(field):
    receipt = verifier().verify(lone_receipt(entry()))
    other = EXPECTED[field] + EXPECTED[field][:1]
    with pytest.raises(ReceiptMismatchError, match=field) as caught:
        check_receipt(receipt, **{**EXPECTED, field: other})
    assert caught.value.metadata == {"field": field}


@given(
    st.binary(max_size=50),
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
)
def test_what_is_written_is_read_and_what_is_read_is_written_alike(extra, index, proof):
    data = format_proof(extra=extra, index=index, proof=proof, checkpoint=b"origin\n")
    parsed = parse_proof(data)
    assert parsed == TlogProof(extra, index, tuple(proof), b"origin\n")


@given(st.binary(max_size=30), st.sampled_from([b"", HEADER, HEADER + b"\n", HEADER + b"\nindex 0\n"]))
def test_any_bytes_give_a_typed_error_or_are_written_alike(data, beginning):
    try:
        parsed = parse_proof(beginning + data)
    except ReceiptFormatError:
        return
    again = format_proof(
        extra=parsed.extra, index=parsed.index, proof=parsed.proof, checkpoint=parsed.checkpoint
    )
    assert again == beginning + data


HASH = b"A" * 43 + b"="


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER,
        HEADER + b"\n\n",
        HEADER + b"\nindex 0",
        HEADER + b"\nindex 0\n",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nc",
        b" " + HEADER + b"\nindex 0\n\nc",
        HEADER + b"\r\nindex 0\n\nc",
        HEADER + b"\nindex 00\n\nc",
        HEADER + b"\nindex +1\n\nc",
        HEADER + b"\nindex  1\n\nc",
        HEADER + b"\nindex 1 \n\nc",
        HEADER + b"\nindex \n\nc",
        HEADER + b"\nindex 9223372036854775808\n\nc",
        HEADER + b"\nIndex 1\n\nc",
        HEADER + b"\nextra QQ==\n\nc",
        HEADER + b"\nindex 1\nextra QQ==\n\nc",
        HEADER + b"\nextra \nindex 1\n\nc",
        HEADER + b"\nextra QR==\nindex 1\n\nc",
        HEADER + b"\nextra QQ\nindex 1\n\nc",
        HEADER + b"\nextra Q Q==\nindex 1\n\nc",
        HEADER + b"\nextra QQ==\nextra QQ==\nindex 1\n\nc",
        HEADER + b"\nindex 1\n" + HASH[:-1] + b"\n\nc",
        HEADER + b"\nindex 1\n" + HASH[:-2] + b"B=\n\nc",
        HEADER + b"\nindex 1\n " + HASH + b"\n\nc",
        HEADER + b"\nindex 1\nQQ==\n\nc",
        HEADER + b"\nindex 1\n" + (HASH + b"\n") * 64 + b"\nc",
        HEADER + b"\nindex 1\n\n" + b"c" * (1 << 20),
    ],
)
def test_any_other_format_is_refused(data):
    with pytest.raises(ReceiptFormatError):
        parse_proof(data)
