"""P3: checkpoints and receipts that were given out long ago verify for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keyark.transparency.checkpoint import Checkpoint, CheckpointSignatureError, NoteVerifier
from keyark.transparency.receipts import ReceiptVerifier, format_proof, parse_proof

FOLDER = Path(__file__).parents[1] / "vectors" / "transparency"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
RECEIPT = EXPECTED["receipt"]


def public_key(name: str) -> bytes:
    key = load_pem_public_key((FOLDER / f"{name}.pub.pem").read_bytes())
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("name", EXPECTED["checkpoints"])
def test_a_frozen_checkpoint_verifies(name):
    expected = EXPECTED["checkpoints"][name]
    note = (FOLDER / f"{name}.checkpoint").read_bytes()
    checkpoint = NoteVerifier.from_public_key(expected["origin"], public_key(name)).verify(note)
    assert checkpoint == Checkpoint(expected["origin"], expected["size"], bytes.fromhex(expected["root"]))


def test_the_frozen_receipt_verifies_and_tells_what_it_told():
    data = (FOLDER / "archival-receipt.tlog-proof").read_bytes()
    receipt = ReceiptVerifier(RECEIPT["origin"], public_key(RECEIPT["key"])).verify(data)
    assert receipt.leaf == bytes.fromhex(RECEIPT["leaf"])
    assert receipt.event.enrollment_id == bytes.fromhex(RECEIPT["enrollment_id"])
    assert receipt.checkpoint == Checkpoint(
        RECEIPT["origin"], RECEIPT["size"], bytes.fromhex(RECEIPT["root"])
    )
    assert (receipt.index, receipt.details.caller) == (RECEIPT["index"], RECEIPT["caller"])
    assert (receipt.details.common_name, receipt.details.email) == (RECEIPT["common_name"], RECEIPT["email"])


def test_the_frozen_receipt_is_written_alike_today():
    data = (FOLDER / "archival-receipt.tlog-proof").read_bytes()
    parsed = parse_proof(data)
    assert (
        format_proof(extra=parsed.extra, index=parsed.index, proof=parsed.proof, checkpoint=parsed.checkpoint)
        == data
    )


def test_the_frozen_receipt_does_not_verify_under_another_key():
    data = (FOLDER / "archival-receipt.tlog-proof").read_bytes()
    with pytest.raises(CheckpointSignatureError):
        ReceiptVerifier(RECEIPT["origin"], public_key("rsa-3072")).verify(data)
