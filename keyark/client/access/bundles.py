"""Homes are made of a deployment's bundle, and take later ones over."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from string import Template
from typing import Final
from urllib.error import URLError

from keyark.client.access.home import Home
from keyark.files import PRIVATE, PUBLIC, read_file, write_file
from keyark.folders import alone_in, filling
from keyark.identity.bundles import BUNDLE, MAX_BUNDLE, Bundle, BundleError, OlderBundleError
from keyark.identity.certificates import fingerprint
from keyark.identity.revoked import IDENTITY_LIST, load_revoked
from keyark.x509.certificates import load_pem_certificates

FETCH_SECONDS: Final = 30
HOME: Final = """\
# What people and programs need to know of this deployment. Nothing here is secret.
trust_domain = "$trust_domain"
# Where the services listen.
rm = "$rm"
cm = "$cm"
drm = "$drm"
# The internal CA, which every service and every person of the deployment is known by.
trust_anchor = "trust-anchor.pem"
# The issuing CA and the root above it: what users' certificates chain to.
ca = "ca.pem"
# The DRM's transport certificates, the newest first: what its log and archival receipts are checked with.
transport = "transport.pem"
# The keys that sign the RM's and the CM's checkpoints.
rm_log_key = "rm-log.pem"
cm_log_key = "cm-log.pem"
"""
BUNDLE_FILES: Final = {
    "ca": "ca.pem",
    "transport": "transport.pem",
    "rm_log_key": "rm-log.pem",
    "cm_log_key": "cm-log.pem",
    "trust_anchor": "trust-anchor.pem",
}
"""Under which names a home keeps the parts of a bundle."""


def fetch(source: str) -> bytes:
    """Return a bundle's bytes from a URL (https or http) or a file; raises BundleError and UnreadableFileError."""
    if not source.startswith(("https://", "http://")):
        return read_file(Path(source), max_size=MAX_BUNDLE)
    try:
        with urllib.request.urlopen(source, timeout=FETCH_SECONDS) as answer:  # noqa: S310 — the scheme was checked
            data: bytes = answer.read(MAX_BUNDLE + 1)
    except (URLError, OSError, ValueError) as error:
        raise BundleError(f"{source} cannot be fetched: {error}.") from None
    return data


def create_home(folder: Path, bundle: Bundle, *, believed: str) -> None:
    """Make a home in a new folder (0700) of a bundle that the internal CA with this fingerprint signed.

    Raises BundleError, with nothing made, and ConfigurationError where the folder holds anything.
    """
    bundle.verify([believed])
    with filling(folder):
        _write(folder, bundle)


def update_home(folder: Path, bundle: Bundle) -> None:
    """Take a later bundle of the same deployment over, under the internal CA's key that the home believes.

    Raises BundleError, OlderBundleError and IdentityListError, with nothing changed.
    """
    home = Home.load(folder)
    with alone_in(folder):
        present = load_pem_certificates(read_file(home.config.trust_anchor, max_size=MAX_BUNDLE))
        bundle.verify([fingerprint(anchor) for anchor in present])
        if bundle.content.trust_domain != home.config.trust_domain:
            raise BundleError("The bundle belongs to another trust domain; make a separate home from it.")
        path = folder / BUNDLE
        if path.exists():
            number = Bundle.parse(read_file(path, max_size=MAX_BUNDLE)).content.number
            if bundle.content.number < number:
                raise OlderBundleError(
                    f"The bundle has number {bundle.content.number}, but the home already has {number}; "
                    "fetch the newest bundle."
                )
        if bundle.content.revoked_identities:  # an older list would bring a revoked identity back
            known = load_revoked(folder / IDENTITY_LIST, bundle.anchors)
            known.newer(bundle.content.revoked_identities.encode())
        _write(folder, bundle)


def _write(folder: Path, bundle: Bundle) -> None:
    """Write what a bundle says; what was interrupted is written again by the next run."""
    content = bundle.content
    for name, file in BUNDLE_FILES.items():
        write_file(folder / file, getattr(content, name).encode(), mode=PUBLIC)
    if content.revoked_identities:
        write_file(folder / IDENTITY_LIST, content.revoked_identities.encode(), mode=PUBLIC)
    addresses = {"rm": content.rm, "cm": content.cm, "drm": content.drm}
    text = Template(HOME).substitute(trust_domain=content.trust_domain, **addresses)
    write_file(folder / "keyark.toml", text.encode(), mode=PRIVATE)
    write_file(folder / BUNDLE, bundle.data, mode=PUBLIC)
