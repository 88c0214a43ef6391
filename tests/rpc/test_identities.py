"""Who calls: TLS 1.3, one SPIFFE ID, one certificate that names it and is valid now; everything else is nobody."""

from __future__ import annotations

import time
from typing import Any

import pytest

from keyark.errors import UnauthenticatedError
from keyark.rpc.identities import PeerReader
from tests.support.running.rpc import identity, revoked_identities

CLIENT = identity("client/alice")
GOOD: dict[str, Any] = {
    "ssl_tls_version": [b"TLSv1.3"],
    "peer_spiffe_id": [b"spiffe://example.org/client/alice"],
    "x509_pem_cert": [CLIENT.certificate],
}


def read(context: dict[str, Any], *, later: int = 0) -> str:
    return str(PeerReader(lambda: int(time.time()) + later, revoked_identities()).identity(context))


def test_a_good_connection_names_its_caller() -> None:
    assert read(GOOD) == "spiffe://example.org/client/alice"


@pytest.mark.parametrize(
    "change",
    [
        {"ssl_tls_version": [b"TLSv1.2"]},
        {"ssl_tls_version": []},
        {"peer_spiffe_id": []},
        {"peer_spiffe_id": [b"spiffe://example.org/client/alice"] * 2},
        {"peer_spiffe_id": [b"spiffe://example.org/client/bob"]},
        {"peer_spiffe_id": [b"spiffe://example.org/wizard/bob"]},
        {"x509_pem_cert": []},
        {"x509_pem_cert": [b"garbage"]},
        {"x509_pem_cert": [CLIENT.certificate] * 2},
        {"x509_pem_cert": [identity("client/bob").certificate]},
    ],
)
def test_everything_else_is_nobody(change: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError):
        read(GOOD | change)


@pytest.mark.parametrize(
    ("later", "words"), [(-40 * 86_400, "is not yet valid"), (40 * 86_400, "has expired")]
)
def test_a_certificate_counts_only_while_it_is_valid(later: int, words: str) -> None:
    with pytest.raises(UnauthenticatedError, match=words):
        read(GOOD, later=later)


def test_remembered_certificates_expire_too() -> None:
    now = [int(time.time())]
    reader = PeerReader(lambda: now[0], revoked_identities())
    reader.identity(GOOD)
    now[0] += 40 * 86_400
    with pytest.raises(UnauthenticatedError):
        reader.identity(GOOD)
