"""`openssl ocsp` and `openssl verify` against the HTTP port of a running CM."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyark.client.access.sessions import open_session
from keyark.client.administration.revocation import hold_certificates, publish_crls, revoke_certificates
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.certificates import load_certificates, save_certificates
from keyark.x509.serials import encode_serial
from tests.support.running.deployment import Deployment, edit, running


class Relying:
    """Somebody with OpenSSL, the CA's chain and a person's certificates."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment, self.folder = deployment, folder
        self.url = f"http://127.0.0.1:{deployment.services['cm'].http_port}"
        self.chain = deployment.folder / "cm" / "ca.pem"
        self.issuer = folder / "issuer.pem"
        save_certificates(self.issuer, load_certificates(self.chain)[:1])

    async def openssl(self, *words: object) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            ["openssl", *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    async def ocsp(self, *asked: object) -> str:
        return await self.openssl(
            "ocsp", "-url", f"{self.url}/ocsp", "-CAfile", self.chain, "-issuer", self.issuer, *asked
        )


@pytest.fixture
async def relying(deployment_folder: Path, tmp_path: Path) -> AsyncIterator[Relying]:
    edit(
        deployment_folder / "cm" / "cm.toml",
        '# [http]\n# listen = "0.0.0.0:8080"',
        '[http]\nlisten = "127.0.0.1:0"',
    )
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
        save_certificates(tmp_path / "signing.pem", [alice.signing_certificate])
        save_certificates(tmp_path / "encryption.pem", [alice.encryption_certificate])
        async with open_session(deployment.home(), "cm", identity="officer/officer") as officer:
            await revoke_certificates(
                officer,
                [encode_serial(alice.signing_certificate.serial_number)],
                reason=RevocationReason.REVOCATION_REASON_KEY_COMPROMISE,
            )
            await hold_certificates(officer, [encode_serial(alice.encryption_certificate.serial_number)])
            await publish_crls(officer)
        async with deployment.client() as client:
            renewed = await client.enroll(common_name="Alice Example", email="alice@example.org")
        save_certificates(tmp_path / "good.pem", [renewed.signing_certificate])
        yield Relying(deployment, tmp_path)


@pytest.mark.parametrize("hashing", ["-sha1", "-sha256"])
@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
async def test_openssl_ocsp_agrees(relying: Relying, hashing: str, nonce: str) -> None:
    for name, words in (
        ("good", ["good.pem: good"]),
        ("signing", ["signing.pem: revoked", "Reason: keyCompromise"]),
        ("encryption", ["encryption.pem: revoked", "Reason: certificateHold"]),
    ):
        told = await relying.ocsp(hashing, nonce, "-cert", f"{name}.pem")
        assert "Response verify OK" in told
        assert "WARNING" not in told  # the nonce came back
        for word in words:
            assert word in told
    assert "unknown" in await relying.ocsp(hashing, nonce, "-serial", "0x0123456789")


async def test_openssl_tells_what_the_responder_refuses(relying: Relying) -> None:
    told = await relying.openssl(
        "ocsp", "-url", f"{relying.url}/ocsp", "-issuer", "good.pem", "-serial", "5", "-CAfile", relying.chain
    )
    assert "Responder Error: unauthorized" in told
    assert "Responder Error: malformedrequest" in await relying.ocsp("-serial", "5", "-serial", "6")


async def test_the_responder_is_who_the_ca_says_and_nobody_else(relying: Relying) -> None:
    await relying.ocsp("-no_nonce", "-cert", "good.pem", "-respout", "answer.der")
    text = await relying.openssl("ocsp", "-respin", "answer.der", "-resp_text", "-noverify")
    for words in ("OCSP Signing", "OCSP No Check", "Digital Signature", "Next Update"):
        assert words in text
    words = ("ocsp", "-respin", "answer.der", "-no_nonce", "-issuer", relying.issuer, "-cert", "good.pem")
    assert "Response verify OK" in await relying.openssl(*words, "-CAfile", relying.chain)
    other = relying.deployment.folder / "trust-anchor.pem"
    assert "Response Verify Failure" in await relying.openssl(*words, "-CAfile", other)


async def test_openssl_verifies_with_the_list_that_is_served(relying: Relying) -> None:
    fetched = await relying.openssl(
        "crl", "-in", f"{relying.url}/crl/full.crl", "-inform", "DER", "-out", "crl.pem"
    )
    assert "error" not in fetched.lower()
    for name, word in (
        ("good", "OK"),
        ("signing", "certificate revoked"),
        ("encryption", "certificate revoked"),
    ):
        told = await relying.openssl(
            "verify", "-crl_check", "-CAfile", relying.chain, "-CRLfile", "crl.pem", f"{name}.pem"
        )
        assert word in told
