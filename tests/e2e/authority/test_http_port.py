"""`keyark up --http`: the real programs serve what relying parties need, and stop."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from pathlib import Path

from cryptography import x509

from tests.support.running.processes import keyark, up


def test_a_relying_party_needs_nothing_but_the_port(deployment_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    home, alice = ("--home", deployment_folder), tmp_path / "alice"
    with up(deployment_folder, "--http", address):
        keyark("enroll", *home, "--name", "Alice Example", "--email", "alice@example.org", "--out", alice)
        issuer = tmp_path / "issuer.cer"
        issuer.write_bytes(fetch(f"http://{address}/ca/issuer.cer"))
        ocsp = [
            "openssl",
            "ocsp",
            "-url",
            f"http://{address}/ocsp",
            "-issuer",
            issuer,
            "-cert",
            alice / "signing.pem",
        ]
        ocsp += ["-CAfile", alice / "chain.pem"]
        assert "signing.pem: good" in output(ocsp)
        keyark("certificates", "revoke-own", alice, *home, "--reason", "superseded")
        told = output(ocsp)
        assert "signing.pem: revoked" in told
        assert "Reason: superseded" in told
        keyark("certificates", "publish-crls", *home)
        crl = x509.load_der_x509_crl(fetch(f"http://{address}/crl/full.crl"))
        certificate = x509.load_pem_x509_certificate((alice / "signing.pem").read_bytes())
        assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def output(command: list[object]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
