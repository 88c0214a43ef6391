"""Every kind of signed message is read in its one canonical encoding, of one version, and verified under its label."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from keyark.canonical import canonical
from keyark.errors import InvalidInputError
from keyark.keys.key_types import KeyType
from keyark.statements import approvals, calls, ceremonies, enrollment, revocations
from keyark.statements.signed import MAX_SIGNATURE_SIZE, SignedKind
from tests.support.keys.pki import private_key

MODULES = (approvals, calls, ceremonies, enrollment, revocations)
UNKNOWN_FIELD = b"\xf2\x7f\x01x"  # number 2046


def kinds_of(module: ModuleType) -> list[SignedKind[Any]]:
    return [value for value in vars(module).values() if isinstance(value, SignedKind)]


KINDS = [kind for module in MODULES for kind in kinds_of(module)]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.message.__name__)


def refused(kind: SignedKind[Any], raw: bytes) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        kind.decode(raw)
    return caught.value


def test_no_two_kinds_share_a_label_for_one_key_signs_several() -> None:
    assert len(KINDS) == len({kind.label for kind in KINDS}) == 6


@each_kind
def test_one_encoding_is_read(kind: SignedKind[Any]) -> None:
    raw = canonical(kind.message(version=kind.version))
    assert kind.decode(raw) == kind.message(version=kind.version)
    for other in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1] + bytes((raw[-1] | 0x80, 0))):
        error = refused(kind, other)
        assert (error.field, "canonical encoding" in error.message) == (kind.field, True)


@each_kind
def test_what_is_too_large_or_no_message_is_refused(kind: SignedKind[Any]) -> None:
    assert "at most" in refused(kind, bytes(kind.max_size + 1)).message
    assert f"no {kind.message.__name__}" in refused(kind, b"\xff").message


@each_kind
@pytest.mark.parametrize("later", [b"", UNKNOWN_FIELD])
def test_another_version_is_told_whatever_fields_it_has(kind: SignedKind[Any], later: bytes) -> None:
    raw = canonical(kind.message(version=kind.version + 1)) + later
    assert refused(kind, raw).field == "version"


@each_kind
def test_a_signature_counts_for_its_bytes_label_and_key(kind: SignedKind[Any]) -> None:
    key, other = (private_key(KeyType.EC_P256, number) for number in (1, 2))
    signature = kind.sign(b"words", key)
    kind.verify(b"words", signature, key.public_key())
    another = KINDS[KINDS.index(kind) - 1]
    for kind_, raw, by, sent in (
        (kind, b"others", key, signature),
        (another, b"words", key, signature),
        (kind, b"words", other, signature),
        (kind, b"words", key, signature + bytes(MAX_SIGNATURE_SIZE)),
    ):
        with pytest.raises(InvalidSignature):
            kind_.verify(raw, sent, by.public_key())
