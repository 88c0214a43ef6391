"""Cosignatures as c2sp.org/tlog-cosignature has them, made and verified; nothing else passes for one."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyark.errors import KeyarkError
from keyark.transparency.checkpoint import Checkpoint, CheckpointKeyError, NoteSigner, NoteVerifier
from keyark.transparency.cosignatures import CosignatureVerifier, Cosigner
from tests.support.stories.transparency import ORIGIN, ecdsa_key, ed25519_key

NAME, AT = "example.org/rm", 1_700_000_000
CHECKPOINT = Checkpoint(ORIGIN, 7, b"\x07" * 32)
NOTE = NoteSigner.from_private_key(ORIGIN, ecdsa_key()).sign(CHECKPOINT)
COSIGNED = Cosigner(NAME, ed25519_key()).cosign(NOTE, at=AT)


def refused(note: bytes, verifier: CosignatureVerifier) -> str:
    with pytest.raises(KeyarkError) as refusal:
        verifier.verify(note)
    return refusal.value.reason


def test_a_cosignature_is_the_line_that_the_specification_says() -> None:
    key = ed25519_key()
    raw = key.public_key().public_bytes_raw()
    key_id = sha256(b"example.org/rm\n\x04" + raw).digest()[:4]
    message = (
        b"cosignature/v1\ntime 1700000000\nexample.org/drm\n7\n" + base64.b64encode(b"\x07" * 32) + b"\n"
    )
    blob = key_id + AT.to_bytes(8, "big") + key.sign(message)
    assert len(blob) == 76
    assert NOTE + "— example.org/rm ".encode() + base64.b64encode(blob) + b"\n" == COSIGNED


def test_log_and_witness_verify_their_own_lines_of_one_note() -> None:
    assert CosignatureVerifier(NAME, ed25519_key().public_key()).verify(COSIGNED) == AT
    assert NoteVerifier(ORIGIN, ecdsa_key().public_key()).verify(COSIGNED) == CHECKPOINT
    both = Cosigner("example.org/cm", Ed25519PrivateKey.generate()).cosign(COSIGNED, at=AT + 1)
    assert CosignatureVerifier(NAME, ed25519_key().public_key()).verify(both) == AT


def test_what_is_no_cosignature_of_the_witness_is_refused() -> None:
    verifier = CosignatureVerifier(NAME, ed25519_key().public_key())
    own_log = NoteSigner.from_private_key(NAME, ed25519_key())
    line = own_log.signature_line(Checkpoint(NAME, 7, b"\x07" * 32))
    other_key = Cosigner(NAME, Ed25519PrivateKey.generate()).cosign(NOTE, at=AT)
    other_name = Cosigner("example.org/cm", ed25519_key()).cosign(NOTE, at=AT)
    for note in (NOTE, NOTE + line, other_key, other_name, COSIGNED.replace(b"\n7\n", b"\n8\n")):
        assert refused(note, verifier) == "CHECKPOINT_SIGNATURE"
    text, _, blob = COSIGNED.rstrip(b"\n").rpartition(b" ")
    for position in range(4, 76, 5):
        broken = bytearray(base64.b64decode(blob))
        broken[position] ^= 1
        assert refused(text + b" " + base64.b64encode(broken) + b"\n", verifier) == "CHECKPOINT_SIGNATURE"
    for size in (5, 12, 75, 77):
        short = base64.b64encode(base64.b64decode(blob).ljust(size, b"\0")[:size])
        assert refused(text + b" " + short + b"\n", verifier) == "CHECKPOINT_SIGNATURE"
    assert refused(b"no note", verifier) == "CHECKPOINT_FORMAT"


def test_only_ed25519_cosigns() -> None:
    with pytest.raises(CheckpointKeyError):
        Cosigner(NAME, ecdsa_key())  # type: ignore[arg-type]
    with pytest.raises(CheckpointKeyError):
        CosignatureVerifier(NAME, ecdsa_key().public_key())
