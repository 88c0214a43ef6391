"""A deployment after years: the clock moves on for what the internal CA signed, by certificates that began earlier."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from keyark.custody.agents import AgentShareKey
from keyark.deployment.access.identities import identity_files
from keyark.identity.certificates import issue_identity, renew_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import load_private_key
from keyark.x509.authority import Authority, create_internal_ca
from keyark.x509.certificates import Validity, encode_certificate, load_certificates, save_certificates
from tests.support.stories.attacks import internal_ca
from tests.support.stories.rotation import certificate_file, key_file

DAY = 86_400
YEAR = 365 * DAY


def anchors_of(folder: Path) -> list[Path]:
    """Where the internal CA's certificate lies in a deployment."""
    services = [folder / role / "trust-anchor.pem" for role in ("rm", "cm", "drm")]
    return [folder / "authority" / "internal-ca.pem", folder / "trust-anchor.pem", *services]


def age(folder: Path, *, left: int) -> Authority:
    """Let the internal CA end in ``left`` seconds, fifteen years after it began, and with it all that it signed."""
    present, end = internal_ca(folder), int(time.time()) + left
    subject = present.certificate.subject
    validity = Validity(end - 15 * YEAR, end)
    aged = create_internal_ca(present.private_key, subject=subject, validity=validity)
    for path in anchors_of(folder):
        save_certificates(path, [aged.certificate])
    for path in identity_files(folder).values():
        validity = Validity(end - 2 * YEAR, end)
        certificate = renew_identity(aged, load_certificates(path)[0], validity=validity)
        save_certificates(path, [certificate])
        if (public := path.with_name("share-key.json")).exists():
            share_key = replace(
                AgentShareKey.from_json(public.read_text()), certificate=encode_certificate(certificate)
            )
            public.write_text(share_key.to_json())
    transport = SpiffeId("example.org", "drm/transport")
    issued = issue_identity(
        aged,
        request_identity(load_private_key(key_file(folder, 1)), transport),
        identity=transport,
        validity=Validity(end - 30 * DAY, end),
    )
    for path in (certificate_file(folder, 1), folder / "transport.pem"):
        save_certificates(path, [issued])
    return aged
