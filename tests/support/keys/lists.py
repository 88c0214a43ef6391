"""CRLs of an office, signed here with the worker's own function; and OpenSSL's word on them."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from cm_service.crl_settings import CrlSettings
from cm_service.public.crl_worker import open_worker, worker_setup
from cm_service.public.crls import Crls
from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.keys.private_keys import save_private_key
from keyark.store import Store
from keyark.x509.authority import Authority
from keyark.x509.certificates import save_certificates
from tests.support.keys.pki import issuing_ca, root_ca


class InlineCrlPool:
    """Signs here; ``before`` and ``after`` run around it."""

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        authority = authority or issuing_ca()
        folder.mkdir(mode=0o700)
        save_private_key(folder / "ca-key.pem", authority.private_key)
        save_certificates(folder / "ca.pem", [authority.certificate])
        setup = worker_setup(issuer_key_uri="file:ca-key.pem", base=folder, chain=folder / "ca.pem")
        self._work = open_worker(setup)
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[InlineCrlPool]:
        yield self

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        self.before()
        results = self._work(list(items))
        self.after()
        return results


def new_crls(
    folder: Path,
    *,
    store: Store,
    clock: Clock,
    pool: InlineCrlPool | None = None,
    urls: Sequence[str] = (),
    **settings: Any,
) -> Crls:
    """Lists in ``folder``/lists."""
    pool = pool or InlineCrlPool(folder / "ca")
    return Crls(
        settings=CrlSettings(folder=folder / "lists", **settings),
        urls=urls,
        store=store,
        clock=clock,
        open_pool=pool.open,
    )


def load_crl(path: Path) -> x509.CertificateRevocationList:
    """A list as the library reads it, its signature verified."""
    crl = x509.load_der_x509_crl(path.read_bytes())
    assert crl.is_signature_valid(issuing_ca().certificate.public_key())
    return crl


def serials_of(crl: x509.CertificateRevocationList) -> set[bytes]:
    """The serial numbers on a list."""
    return {entry.serial_number.to_bytes(20, "big").lstrip(b"\0") for entry in crl}


class Openssl:
    """OpenSSL's command on files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        save_certificates(folder / "trusted.pem", [root_ca().certificate, issuing_ca().certificate])

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["openssl", *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def certificate(self, name: str, der: bytes) -> Path:
        path = self.folder / name
        save_certificates(path, [x509.load_der_x509_certificate(der)])
        return path

    def pem_crls(self, *lists: Path) -> Path:
        """Some lists as one PEM file, for -CRLfile."""
        texts = []
        for path in lists:
            done = self.run("crl", "-inform", "DER", "-in", path)
            assert done.returncode == 0, done.stderr
            texts.append(done.stdout)
        target = self.folder / "lists.pem"
        target.write_text("".join(texts))
        return target

    def verify(self, certificate: Path, crls: Path, at: int, *options: str) -> str:
        """ "OK", or OpenSSL's words on why not."""
        words = ("verify", "-attime", at, "-CAfile", "trusted.pem", "-CRLfile", crls, *options, certificate)
        done = self.run(*words)
        return "OK" if done.returncode == 0 else done.stdout + done.stderr
