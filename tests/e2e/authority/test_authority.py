"""`keyark authority`: three hosts of their own, whose requests are signed for whom the operator expects."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keyark.identity.certificates import identity_of, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate_signing
from keyark.service.program.initialization import save_request
from keyark.x509.certificates import load_certificates
from tests.support.running.processes import keyark


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority on a machine of its own."""
    folder = tmp_path_factory.mktemp("offline") / "authority"
    keyark("authority", "init", folder, "--trust-domain", "example.org")
    return folder


def request(path: Path, identity: str, key_type: KeyType = KeyType.EC_P256) -> Path:
    save_request(path, request_identity(generate_signing(key_type), SpiffeId.parse(identity)))
    return path


@pytest.mark.parametrize(
    "identity", ["rm", "cm", "drm", "drm/transport", "agent/dora", "client/hr", "officer/olga", "auditor/eve"]
)
def test_what_services_the_transport_key_and_people_ask_for_is_signed(
    authority: Path, tmp_path: Path, identity: str
) -> None:
    out = tmp_path / "cert.pem"
    csr = request(tmp_path / "request.csr", f"spiffe://example.org/{identity}")
    keyark("identities", "issue", identity, csr, "--authority", authority, "--out", out)
    certificate = load_certificates(out)[0]
    assert str(identity_of(certificate)) == f"spiffe://example.org/{identity}"
    certificate.verify_directly_issued_by(load_certificates(authority / "internal-ca.pem")[0])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("spiffe://example.org/client/mallory", "officer/olga"),
        ("spiffe://example.org/agent/dora", "agent/doris"),
        ("spiffe://example.org/rm", "drm"),
        ("spiffe://example.org/drm", "drm/transport"),
        ("spiffe://example.net/rm", "rm"),
    ],
)
def test_a_request_for_somebody_else_is_refused_and_nothing_is_written(
    authority: Path, tmp_path: Path, asked: str, expected: str
) -> None:
    out = tmp_path / "cert.pem"
    csr = request(tmp_path / "request.csr", asked)
    failed = keyark("identities", "issue", expected, csr, "--authority", authority, "--out", out, code=1)
    assert "does not ask for" in failed.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("expected", "code"),
    [("", 2), ("king/arthur", 1), ("agent", 1), ("agent/", 1), ("agent/../rm", 1), ("rm/rm", 1)],
)
def test_an_identity_that_there_is_not_is_refused(
    authority: Path, tmp_path: Path, expected: str, code: int
) -> None:
    csr = request(tmp_path / "request.csr", "spiffe://example.org/rm")
    out = tmp_path / "cert.pem"
    keyark("identities", "issue", expected, csr, "--authority", authority, "--out", out, code=code)
    assert not out.exists()


def test_what_is_no_request_or_was_altered_is_refused(authority: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "request.csr", "spiffe://example.org/rm")
    lines = csr.read_text().splitlines()
    lines[-2] = ("A" if lines[-2][0] != "A" else "B") + lines[-2][1:]
    altered, out = tmp_path / "altered.csr", tmp_path / "cert.pem"
    altered.write_text("\n".join(lines))
    for path in (altered, authority / "internal-ca.pem", tmp_path / "missing.csr"):
        keyark("identities", "issue", "rm", path, "--authority", authority, "--out", out, code=1)
    assert not out.exists()


def test_an_authority_has_to_be_named_and_to_be_one(authority: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "request.csr", "spiffe://example.org/rm")
    sign = ("identities", "issue", "rm", csr, "--out", tmp_path / "cert.pem")
    assert "--authority" in keyark(*sign, code=2).stderr
    assert "not an authority's folder" in keyark(*sign, "--authority", tmp_path, code=1).stderr
    lax = tmp_path / "lax"
    shutil.copytree(authority, lax)
    (lax / "internal-ca-key.pem").chmod(0o644)
    assert "chmod 600" in keyark(*sign, "--authority", lax, code=1).stderr


def test_an_authority_without_its_root_key_signs_identities_and_no_issuing_ca(
    authority: Path, tmp_path: Path
) -> None:
    online = tmp_path / "online"
    shutil.copytree(authority, online)
    (online / "root-key.pem").unlink()
    csr = request(tmp_path / "request.csr", "spiffe://example.org/rm")
    keyark("identities", "issue", "rm", csr, "--authority", online, "--out", tmp_path / "cert.pem")
    refused = ("authority", "sign-ca", csr, "--authority", online, "--name", "Issuing CA")
    keyark(*refused, "--out", tmp_path / "ca.pem", code=1)
    assert not (tmp_path / "ca.pem").exists()


def test_a_trust_domain_that_there_cannot_be_makes_no_authority(tmp_path: Path) -> None:
    for domain in ("Example.org", "", "a b"):
        keyark("authority", "init", tmp_path / "authority", "--trust-domain", domain, code=2)
    assert not (tmp_path / "authority").exists()


def test_an_existing_authority_is_not_made_anew(authority: Path) -> None:
    before = (authority / "internal-ca-key.pem").read_bytes()
    keyark("authority", "init", authority, "--trust-domain", "example.org", code=1)
    assert (authority / "internal-ca-key.pem").read_bytes() == before
