"""P6: a checkpoint counts only in its exact format, from its own log, with a signature that verifies."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from keyark.transparency.checkpoint import (
    MAX_NOTE_SIZE,
    Checkpoint,
    CheckpointError,
    CheckpointFormatError,
    CheckpointKeyError,
    CheckpointOriginError,
    CheckpointSignatureError,
    NoteSigner,
    NoteVerifier,
    note_key_id,
)
from keyark.transparency.succession import SuccessionSigner
from tests.support.stories.transparency import ORIGIN, ecdsa_key, ed25519_key, rsa_key

KEYS = {"ed25519": ed25519_key, "ecdsa": ecdsa_key, "rsa": rsa_key}
HEAD = Checkpoint(ORIGIN, 20852163, bytes(range(32)))
DASH = "—".encode()


def signer(name: str = "ed25519", origin: str = ORIGIN) -> NoteSigner:
    return NoteSigner.from_private_key(origin, KEYS[name]())


def verifier(name: str = "ed25519", origin: str = ORIGIN) -> NoteVerifier:
    return NoteVerifier.from_public_key(origin, signer(name).public_key_der)


def signed(text: bytes) -> bytes:
    """A note with any text, signed by the Ed25519 key under the log's name."""
    key = ed25519_key()
    line = b64encode(note_key_id(ORIGIN, key.public_key()) + key.sign(text))
    return text + b"\n" + DASH + b" " + ORIGIN.encode() + b" " + line + b"\n"


@pytest.mark.parametrize("name", KEYS)
def test_what_is_signed_verifies(name):
    assert verifier(name).verify(signer(name).sign(HEAD)) == HEAD


def test_the_text_is_that_of_the_specification():
    root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    head = Checkpoint("example.com/behind-the-sofa", 20852163, b64decode(root))
    assert head.text().decode() == f"example.com/behind-the-sofa\n20852163\n{root}\n"


def test_key_ids_are_those_of_public_logs():
    """The Go checksum database (Ed25519) and Sigstore's Rekor (ECDSA P-256)."""
    go = Ed25519PublicKey.from_public_bytes(b64decode("Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")[1:])
    assert note_key_id("sum.golang.org", go).hex() == "033de0ae"
    rekor = load_der_public_key(
        b64decode(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2G2Y+2tabdTV5BcGiBIx0a9fAFwrkBbmLSGtks4L3qX6yYY0zufBnhC8Ur/iy55G"
            "hWP/9A/bY2LhC30M9+RYtw=="
        )
    )
    assert note_key_id("rekor.sigstore.dev", rekor).hex() == "c0d23d6a"


@pytest.mark.parametrize("name", KEYS)
def test_another_key_of_the_type_does_not_verify(name):
    others = {"ed25519": "ecdsa", "ecdsa": "rsa", "rsa": "ed25519"}
    with pytest.raises(CheckpointSignatureError, match="not signed by the known key"):
        verifier(name).verify(signer(others[name]).sign(HEAD))


@pytest.mark.parametrize("name", KEYS)
def test_a_signature_over_another_head_does_not_verify(name):
    note = signer(name).sign(HEAD)
    with pytest.raises(CheckpointSignatureError, match="does not verify"):
        verifier(name).verify(note.replace(b"\n20852163\n", b"\n20852164\n"))


def test_a_checkpoint_of_another_log_is_refused():
    note = NoteSigner.from_private_key("example.org/rm", ed25519_key()).sign(
        Checkpoint("example.org/rm", 1, bytes(32))
    )
    with pytest.raises(CheckpointOriginError):
        verifier().verify(note)


def test_a_log_does_not_sign_for_another():
    with pytest.raises(CheckpointOriginError):
        signer().sign(Checkpoint("example.org/rm", 1, bytes(32)))


def test_signatures_of_other_keys_are_ignored():
    note = signer().sign(HEAD)
    text, own = note.split(b"\n\n")
    lines = [DASH + b" witness.example " + b64encode(b"\0" * 80)] * 15
    assert verifier().verify(text + b"\n\n" + b"\n".join([*lines, own])) == HEAD
    assert verifier().verify(note + b"\n".join(lines) + b"\n") == HEAD


def test_a_key_signs_a_note_once_so_nobody_makes_readers_verify_a_line_again_and_again():
    note = signer().sign(HEAD)
    own = note.split(b"\n\n")[1]
    forged = b64encode(note_key_id(ORIGIN, ed25519_key().public_key()) + bytes(64))
    for second in (own, DASH + b" " + ORIGIN.encode() + b" " + forged + b"\n"):
        with pytest.raises(CheckpointFormatError, match="two signatures of one key"):
            verifier().verify(note + second)


def test_a_key_that_shares_only_the_name_or_only_the_id_is_unknown():
    key_id = note_key_id(ORIGIN, ed25519_key().public_key())
    text, _ = signer().sign(HEAD).split(b"\n\n")
    same_name = DASH + b" " + ORIGIN.encode() + b" " + b64encode(b"abcd" + bytes(64)) + b"\n"
    same_id = DASH + b" other.example " + b64encode(key_id + bytes(64)) + b"\n"
    assert verifier().verify(signer().sign(HEAD) + same_name + same_id) == HEAD
    with pytest.raises(CheckpointSignatureError, match="not signed by the known key"):
        verifier().verify(text + b"\n\n" + same_name + same_id)


ROOT = b64encode(bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        b"%s\n01\n%s\n" % (ORIGIN.encode(), ROOT),
        b"%s\n+1\n%s\n" % (ORIGIN.encode(), ROOT),
        b"%s\n-1\n%s\n" % (ORIGIN.encode(), ROOT),
        b"%s\n1 \n%s\n" % (ORIGIN.encode(), ROOT),
        b"%s\n\n%s\n" % (ORIGIN.encode(), ROOT),
        f"{ORIGIN}\n\u0661\n{ROOT.decode()}\n".encode(),
        b"%s\n9223372036854775808\n%s\n" % (ORIGIN.encode(), ROOT),
        b"%s\n1\n%s\n" % (ORIGIN.encode(), ROOT[:-1]),
        b"%s\n1\n%s\n" % (ORIGIN.encode(), ROOT[:-2] + b"B="),
        b"%s\n1\n%s\n" % (ORIGIN.encode(), b64encode(bytes(31))),
        b"%s\n1\n%s\nextension\n" % (ORIGIN.encode(), ROOT),
        b"%s\n1\n" % ORIGIN.encode(),
        b"\n1\n%s\n" % ROOT,
        b"%s\r\n1\n%s\n" % (ORIGIN.encode(), ROOT),
        b"\xff\n1\n%s\n" % ROOT,
        b"%s\n1\n%s\n\n" % (ORIGIN.encode(), ROOT),
    ],
)
def test_a_signed_text_in_any_other_format_is_refused(text):
    with pytest.raises(CheckpointFormatError):
        verifier().verify(signed(text))


def test_the_empty_tree_has_a_checkpoint():
    text = b"%s\n0\n%s\n" % (ORIGIN.encode(), ROOT)
    assert verifier().verify(signed(text)) == Checkpoint(ORIGIN, 0, bytes(32))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (DASH, b"-"),
        (DASH + b" ", DASH),
        (DASH + b" ", DASH + b"  "),
        (b"\n\n", b"\n"),
        (b"\n\n", b"\n\x00\n"),
        (ORIGIN.encode() + b" ", b" "),
        (ORIGIN.encode() + b" ", b"example.org/d+m "),
        (ORIGIN.encode() + b" ", "example.org/d\u00a0rm ".encode()),
    ],
)
def test_another_signature_line_is_refused(old, new):
    head, separator, line = signer().sign(HEAD).rpartition(b"\n\n")
    note = head + (separator + line).replace(old, new)
    with pytest.raises(CheckpointFormatError):
        verifier().verify(note)


@pytest.mark.parametrize("tail", [b"\n", b"x", b" ", b"=\n", b"\xe2\x80\x94\n"])
def test_nothing_may_follow(tail):
    with pytest.raises(CheckpointFormatError):
        verifier().verify(signer().sign(HEAD) + tail)


def test_a_note_without_its_last_newline_is_refused():
    with pytest.raises(CheckpointFormatError):
        verifier().verify(signer().sign(HEAD)[:-1])


def test_size_and_number_of_signatures_are_limited():
    other = DASH + b" w.example " + b64encode(bytes(68)) + b"\n"
    with pytest.raises(CheckpointFormatError, match="more than 16"):
        verifier().verify(signer().sign(HEAD) + other * 16)
    with pytest.raises(CheckpointFormatError, match="too large"):
        verifier().verify(signer().sign(HEAD) + DASH + b" w.example " + b"A" * MAX_NOTE_SIZE + b"\n")


def test_a_signature_line_without_a_signature_is_refused():
    with pytest.raises(CheckpointFormatError):
        verifier().verify(signer().sign(HEAD) + DASH + b" w.example " + b64encode(b"abcd") + b"\n")


@pytest.mark.parametrize("name", KEYS)
def test_any_flipped_bit_is_refused(name):
    note = signer(name).sign(HEAD)
    check = verifier(name)
    for bit in range(0, len(note) * 8, 7):
        flipped = bytearray(note)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError):
            check.verify(bytes(flipped))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_typed_error(data):
    with pytest.raises(CheckpointError):
        verifier().verify(data)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\x01b"])
def test_an_origin_that_is_no_key_name_is_refused(origin):
    with pytest.raises(CheckpointFormatError):
        signer(origin=origin)
    with pytest.raises(CheckpointFormatError):
        verifier(origin=origin)


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(7, ec.SECP384R1()),
        rsa.generate_private_key(65537, 1024),
        ed448.Ed448PrivateKey.generate(),
    ],
)
def test_other_keys_neither_sign_nor_verify(key):
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(CheckpointKeyError):
        NoteSigner.from_private_key(ORIGIN, key)
    with pytest.raises(CheckpointKeyError):
        NoteVerifier.from_public_key(ORIGIN, der)


def test_a_public_key_in_another_encoding_is_refused():
    compressed = ecdsa_key().public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    der = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + compressed
    with pytest.raises(CheckpointKeyError, match="canonical"):
        NoteVerifier.from_public_key(ORIGIN, der)
    with pytest.raises(CheckpointKeyError, match="does not load"):
        NoteVerifier.from_public_key(ORIGIN, der[:-1])


def succession(*names: str) -> SuccessionSigner:
    """The keys of a log that follow one another, the last one handed over to."""
    signer_ = SuccessionSigner()
    signer_.begin(signer(names[0]))
    for name in names[1:]:
        signer_.hand_over(signer(name))
    return signer_


def test_while_one_key_hands_over_to_the_next_both_sign():
    note = succession("ecdsa", "rsa").sign(HEAD)
    for name in ("ecdsa", "rsa"):
        assert verifier(name).verify(note) == HEAD
    with pytest.raises(CheckpointSignatureError):
        verifier("ed25519").verify(note)


def test_after_the_handing_over_the_newest_key_signs_alone():
    signer_ = succession("ecdsa", "rsa")
    signer_.complete()
    note = signer_.sign(HEAD)
    assert verifier("rsa").verify(note) == HEAD
    assert signer_.public_key_der == signer("rsa").public_key_der
    with pytest.raises(CheckpointSignatureError):
        verifier("ecdsa").verify(note)


def test_a_succession_without_a_key_signs_nothing():
    with pytest.raises(CheckpointKeyError):
        SuccessionSigner().sign(HEAD)


@pytest.mark.parametrize("name", KEYS)
def test_each_of_several_known_keys_may_have_signed(name):
    known = NoteVerifier.from_public_key(ORIGIN, *(signer(key).public_key_der for key in KEYS))
    assert known.verify(signer(name).sign(HEAD)) == HEAD


def test_a_wrong_signature_of_one_known_key_is_not_made_good_by_another():
    text, newest, older = succession("ecdsa", "rsa").sign(HEAD).rpartition(b"\n\n")
    lines = older.splitlines(keepends=True)
    forged = signer("rsa").sign(Checkpoint(ORIGIN, 1, bytes(32))).splitlines(keepends=True)[-1]
    note = text + newest + forged + lines[1]
    assert verifier("ecdsa").verify(note) == HEAD
    known = NoteVerifier.from_public_key(ORIGIN, *(signer(key).public_key_der for key in ("ecdsa", "rsa")))
    with pytest.raises(CheckpointSignatureError):
        known.verify(note)


def test_an_older_key_that_does_not_serve_is_refused():
    with pytest.raises(CheckpointKeyError):
        NoteVerifier.from_public_key(ORIGIN, signer().public_key_der, b"no key")
