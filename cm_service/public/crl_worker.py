"""What a worker process does that signs lists: one of its own, so that issuance does not wait for a long list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from keyark.custody.uris import load_private_key_by_uri
from keyark.files import read_file, write_file
from keyark.records.v1.cm_pb2 import SignCrlResult, SignCrlTask
from keyark.x509.certificates import load_certificates
from keyark.x509.crls import CrlContent, CrlIssuer

FACTORY: Final = "cm_service.public.crl_worker:open_worker"
MAX_ENTRIES: Final = 1 << 31
"""Bytes of the entries of one list."""


def worker_setup(*, issuer_key_uri: str, base: Path, chain: Path) -> bytes:
    """Return the set-up that ``open_worker`` takes: where the CA key is, never the key itself."""
    return json.dumps({"key": issuer_key_uri, "base": str(base), "chain": str(chain)}).encode()


def open_worker(setup: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Load the CA key and return the function that works a batch of SignCrlTasks.

    Raises ConfigurationError where key or certificate do not load, do not fit, or may not sign lists.
    """
    settings = json.loads(setup)
    private_key = load_private_key_by_uri(settings["key"], Path(settings["base"]))
    certificate = load_certificates(Path(settings["chain"]))[0]
    issuer = CrlIssuer(certificate=certificate, private_key=private_key)  # type: ignore[arg-type]

    def work(batch: list[bytes]) -> list[bytes]:
        return [sign_crl(task, issuer) for task in batch]

    return work


def sign_crl(task: bytes, issuer: CrlIssuer) -> bytes:
    """Sign the list of one SignCrlTask and put it in its place; returns a serialized SignCrlResult."""
    request = SignCrlTask.FromString(task)
    crl = issuer.issue(
        CrlContent(
            number=request.number,
            this_update=request.this_update,
            next_update=request.next_update,
            entries=read_file(Path(request.entries_path), max_size=MAX_ENTRIES),
            base_number=request.base_number or None,
            urls=request.urls,
            delta_urls=request.delta_urls,
        )
    )
    write_file(Path(request.path), crl, mode=0o644)
    return SignCrlResult(size=len(crl)).SerializeToString()
