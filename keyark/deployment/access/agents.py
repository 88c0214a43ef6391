"""An agent's share key, made on the agent's own machine once the certificate is there, and its public file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.files import PRIVATE, PUBLIC, read_file, read_secret_file, write_file, write_new_file
from keyark.keys.key_types import PrivateKey
from keyark.keys.private_keys import AskPassword, PasswordRequiredError
from keyark.x509.certificates import load_certificates

SHARE_KEY: Final = "share-key.pem"
PUBLIC_SHARE_KEY: Final = "share-key.json"
MAX_FILE: Final = 1 << 16


def make_share_key(folder: Path, certificate_key: PrivateKey, *, password: bytes | None) -> Path:
    """Make the share key of the agent whose cert.pem lies in ``folder``; returns its signed public file."""
    share_key = ShareKey.generate()
    public = AgentShareKey.create(
        share_key=share_key,
        certificate=load_certificates(folder / "cert.pem")[0],
        certificate_key=certificate_key,
    )
    write_new_file(folder / SHARE_KEY, share_key.to_pem(password=password), mode=PRIVATE)
    write_new_file(folder / PUBLIC_SHARE_KEY, public.to_json().encode(), mode=PUBLIC)
    return folder / PUBLIC_SHARE_KEY


def sign_share_key_again(folder: Path, certificate_key: PrivateKey, *, ask_password: AskPassword) -> Path:
    """Write the public file of the share key that is there anew, under the present cert.pem; returns it.

    ``ask_password`` is called only if the share key is encrypted. Raises WrongPasswordError and the errors of files.
    """
    data = read_secret_file(folder / SHARE_KEY, max_size=MAX_FILE)
    try:
        share_key = ShareKey.from_pem(data, password=None)
    except PasswordRequiredError:
        share_key = ShareKey.from_pem(data, password=ask_password())
    certificate = load_certificates(folder / "cert.pem")[0]
    public = AgentShareKey.create(
        share_key=share_key, certificate=certificate, certificate_key=certificate_key
    )
    write_file(folder / PUBLIC_SHARE_KEY, public.to_json().encode(), mode=PUBLIC)
    return folder / PUBLIC_SHARE_KEY


def certify_share_key_anew(
    folder: Path, *, trust_anchor: x509.Certificate, certificate_key: PrivateKey | None
) -> None:
    """Have the public file of an agent's share key, where there is one, carry the agent's present certificate.

    ``certificate_key`` is None where the certificate is of the same key as before. Raises as
    ``AgentShareKey.recertified`` does.
    """
    path = folder / PUBLIC_SHARE_KEY
    if not path.exists():
        return
    present = AgentShareKey.from_json(read_file(path, max_size=MAX_FILE).decode(errors="replace"))
    certificate = load_certificates(folder / "cert.pem")[0]
    anew = present.recertified(certificate, trust_anchor=trust_anchor, certificate_key=certificate_key)
    write_file(path, anew.to_json().encode(), mode=PUBLIC)
