"""An agent's share key, made on the agent's own machine once the certificate is there."""

from __future__ import annotations

from pathlib import Path

from keyark.crypto.agents import AgentShareKey, ShareKey
from keyark.pki.certificates import load_certificates
from keyark.pki.files import write_new_file
from keyark.pki.key_types import PrivateKey
from keyark.service.initialization import PRIVATE, PUBLIC


def make_share_key(folder: Path, certificate_key: PrivateKey, *, password: bytes | None) -> Path:
    """Make the share key of the agent whose cert.pem lies in ``folder``; returns its signed public file."""
    share_key = ShareKey.generate()
    public = AgentShareKey.create(
        share_key=share_key,
        certificate=load_certificates(folder / "cert.pem")[0],
        certificate_key=certificate_key,
    )
    write_new_file(folder / "share-key.pem", share_key.to_pem(password=password), mode=PRIVATE)
    write_new_file(folder / "share-key.json", public.to_json().encode(), mode=PUBLIC)
    return folder / "share-key.json"
