"""The authority signs a deployment's bundle, of which people make their homes."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, fields
from pathlib import Path
from string import Template
from typing import Final

from keyark.client.access.bundles import BUNDLE_FILES
from keyark.client.access.home import Home
from keyark.contexts import context
from keyark.deployment.access.authority import CONFIG, DeploymentAuthority
from keyark.files import PUBLIC, read_file, write_file
from keyark.identity.bundles import BUNDLE, LABEL, MAX_BUNDLE, SIGNATURE, Bundle, BundleError
from keyark.identity.certificates import fingerprint
from keyark.identity.revoked import IDENTITY_LIST
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.keys.signatures import sign_message
from keyark.x509.certificates import encode_pem_certificates, load_pem_certificates

_TEMPLATE: Final = """\
# What people and programs need to know of a deployment; the internal CA signed it. Nothing here is secret.
# Make a home of it with: keyark home create FOLDER --from deployment.toml
version = 1
# A home refuses a bundle with a lower number than its own.
number = $number
trust_domain = "$trust_domain"
rm = "$rm"
cm = "$cm"
drm = "$drm"
trust_anchor = '''
$trust_anchor'''
ca = '''
$ca'''
transport = '''
$transport'''
rm_log_key = '''
$rm_log_key'''
cm_log_key = '''
$cm_log_key'''
revoked_identities = '''
$revoked_identities'''
"""


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """What a bundle is made of: where the services are, and the files with certificates and log keys (PEM).

    ``earlier_transport`` has transport certificates that homes know already; those of ``transport`` stand before them.
    """

    rm: str
    cm: str
    drm: str
    ca: Path
    transport: Path
    rm_log_key: Path
    cm_log_key: Path
    trust_anchor: Path
    earlier_transport: Path | None = None

    @classmethod
    def of_home(cls, home: Path) -> BundleSource:
        """Return what a home says now."""
        config = Home.load(home).config
        parts = {one.name: getattr(config, one.name) for one in fields(cls) if hasattr(config, one.name)}
        return cls(**parts, earlier_transport=config.transport)


def sign_bundle(source: BundleSource, authority: DeploymentAuthority, out: Path) -> Bundle:
    """Write a bundle, with a higher number than the one that lies there; returns it.

    Raises BundleError, CertificateRequestError and the errors of files, with nothing written, where a certificate or
    key is not what it has to be, or the internal CA is not the one of these files.
    """
    before = Bundle.parse(read_file(out, max_size=MAX_BUNDLE)).content.number if out.exists() else 0
    files = {name: getattr(source, name) for name in BUNDLE_FILES}
    texts = {name: _text(path) for name, path in files.items()} | {"transport": _transport(source)}
    revoked = authority.folder / IDENTITY_LIST
    body = (
        Template(_TEMPLATE)
        .substitute(
            texts,
            number=max(int(time.time()), before + 1),
            trust_domain=authority.trust_domain,
            **{role: getattr(source, role) for role in SERVICE_ROLES},
            revoked_identities=_text(revoked) if revoked.exists() else "",
        )
        .removesuffix("\n")
        .encode()
    )
    signature = sign_message(authority.internal.private_key, context(LABEL, body))
    data = body + f'{SIGNATURE}{base64.b64encode(signature).decode()}"\n'.encode()
    bundle = Bundle.parse(data)
    bundle.verify([fingerprint(authority.internal.certificate)])
    write_file(out, data, mode=PUBLIC)
    return bundle


def publish_bundle(home: Path, source: BundleSource, authority: DeploymentAuthority) -> Bundle:
    """Write a home's bundle, and put it beside the configuration of each service in the home, which hands it out.

    On other hosts the operator puts it there. Raises as ``sign_bundle`` does.
    """
    bundle = sign_bundle(source, authority, home / BUNDLE)
    for role in SERVICE_ROLES:
        if (home / role / f"{role}.toml").is_file():
            write_file(home / role / BUNDLE, bundle.data, mode=PUBLIC)
    return bundle


def keep_bundle(home: Path, authority: DeploymentAuthority | None = None) -> None:
    """Sign a home's bundle anew, after a change of its public files, where it has one and the authority is here.

    Raises as ``sign_bundle`` does.
    """
    folder = home / "authority"
    if authority is None and (folder / CONFIG).is_file():
        authority = DeploymentAuthority.load(folder)
    if authority is not None and (home / BUNDLE).exists():
        publish_bundle(home, BundleSource.of_home(home), authority)


def _transport(source: BundleSource) -> str:
    """Return the transport certificates, PEM, the newest first; a home follows from one that it knows already."""
    paths = [source.transport, *([source.earlier_transport] if source.earlier_transport else [])]
    certificates = [one for path in paths for one in load_pem_certificates(_text(path).encode())]
    return encode_pem_certificates(list(dict.fromkeys(certificates))).decode()


def _text(path: Path) -> str:
    try:
        return read_file(path, max_size=MAX_BUNDLE).decode("ascii")
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not a PEM file; name another one.") from None
