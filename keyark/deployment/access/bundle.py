"""One public file from which people make their homes: addresses, trust anchors and log keys, signed by the internal CA.

``deployment.toml`` is TOML whose last line is the signature over all lines before it. Whoever makes a home compares the
fingerprint of the internal CA's key with the one that the operator told; a home takes later bundles under that key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
import tomllib
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Annotated, Final, Literal
from urllib.error import URLError

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, ValidationError

from keyark.client.access.home import Home
from keyark.config import Addresses, Config
from keyark.contexts import context
from keyark.deployment.access.authority import CONFIG, DeploymentAuthority
from keyark.errors import KeyarkError, Kind
from keyark.files import alone_in, filling, read_file, write_file
from keyark.identity.certificates import check_issuer, fingerprint, identity_of
from keyark.identity.revoked import IDENTITY_LIST, RevokedIdentities, load_revoked
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.signatures import sign_message, verify_message
from keyark.service.program.initialization import PRIVATE, PUBLIC
from keyark.x509.certificates import load_pem_certificates

BUNDLE: Final = "deployment.toml"
LABEL: Final = "keyark/deployment/v1"
MAX_BUNDLE: Final = 1 << 20
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
_TEMPLATE: Final = """\
# What people and programs need to know of a deployment; the internal CA signed it. Nothing here is secret.
# Make a home of it with: keyark home create FOLDER --from deployment.toml
version = 1
# A home takes no bundle with a lower number than the one that it has.
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
_SIGNATURE: Final = '\nsignature = "'
_FILES: Final = {
    "ca": "ca.pem",
    "transport": "transport.pem",
    "rm_log_key": "rm-log.pem",
    "cm_log_key": "cm-log.pem",
    "trust_anchor": "trust-anchor.pem",
}


class BundleError(KeyarkError):
    """A deployment's bundle is malformed, or not signed by the internal CA that is believed."""

    reason = "DEPLOYMENT_BUNDLE"
    kind = Kind.PRECONDITION


class OlderBundleError(BundleError):
    """A bundle is older than the one that a home was made of."""

    reason = "OLDER_DEPLOYMENT_BUNDLE"


class BundleContent(Config):
    """What a bundle says; certificates, keys and the list of revoked identities are PEM."""

    version: Literal[1]
    number: Annotated[int, Field(ge=0)]
    trust_domain: str
    rm: Addresses
    cm: Addresses
    drm: Addresses
    trust_anchor: str
    ca: str
    transport: str
    rm_log_key: str
    cm_log_key: str
    revoked_identities: str = ""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle as it was read; nothing of it counts before ``verify``."""

    data: bytes = field(repr=False)
    content: BundleContent
    anchors: tuple[x509.Certificate, ...]
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read a bundle; raises BundleError for what is none."""
        try:
            body, found, rest = data.decode().rpartition(_SIGNATURE)
            encoded = rest.removesuffix('"\n')
            if len(data) > MAX_BUNDLE or not found or encoded == rest:
                raise ValueError("no signature")
            signature = base64.b64decode(encoded, validate=True)
            content = BundleContent.model_validate(tomllib.loads(body))
        except (ValueError, binascii.Error, ValidationError, RecursionError):
            raise BundleError("This is no bundle of a deployment; fetch it again.") from None
        anchors = tuple(load_pem_certificates(content.trust_anchor.encode()))
        return cls(data=data, content=content, anchors=anchors, signature=signature)

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprint of each internal CA in it; the first is for people to compare."""
        return [fingerprint(anchor) for anchor in self.anchors]

    def verify(self, believed: Collection[str]) -> None:
        """Raise BundleError unless an internal CA with one of these fingerprints signed it and what it says fits."""
        _verify_signature(self, believed)
        self._check_content()

    def _check_content(self) -> None:
        transport = load_pem_certificates(self.content.transport.encode())
        expected = SpiffeId(self.content.trust_domain, TRANSPORT_ROLE)
        for certificate in transport:
            check_issuer(certificate, self.anchors)
            if identity_of(certificate) != expected:
                raise BundleError(f"The bundle's transport certificate is not that of {expected}.")
        load_pem_certificates(self.content.ca.encode())
        for text in (self.content.rm_log_key, self.content.cm_log_key):
            _check_log_key(text)
        if self.content.revoked_identities:
            RevokedIdentities(self.anchors).newer(self.content.revoked_identities.encode())


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


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """What a bundle is made of: where the services are, and the files with certificates and log keys (PEM)."""

    rm: str
    cm: str
    drm: str
    ca: Path
    transport: Path
    rm_log_key: Path
    cm_log_key: Path
    trust_anchor: Path

    @classmethod
    def of_home(cls, home: Path) -> BundleSource:
        """Return what a home says now."""
        config = Home.load(home).config
        return cls(**{one.name: getattr(config, one.name) for one in fields(cls)})


def sign_bundle(source: BundleSource, authority: DeploymentAuthority, out: Path) -> Bundle:
    """Write a bundle, with a higher number than the one that lies there; returns it.

    Raises BundleError, CertificateRequestError and the errors of files, with nothing written, where a certificate or
    key is not what it has to be, or the internal CA is not the one of these files.
    """
    before = Bundle.parse(read_file(out, max_size=MAX_BUNDLE)).content.number if out.exists() else 0
    files = {name: getattr(source, name) for name in _FILES}
    texts = {name: _text(path) for name, path in files.items()}
    revoked = authority.folder / IDENTITY_LIST
    body = (
        Template(_TEMPLATE)
        .substitute(
            texts,
            number=max(int(time.time()), before + 1),
            trust_domain=authority.trust_domain,
            **{role: getattr(source, role) for role in ("rm", "cm", "drm")},
            revoked_identities=_text(revoked) if revoked.exists() else "",
        )
        .removesuffix("\n")
        .encode()
    )
    signature = sign_message(authority.internal.private_key, context(LABEL, body))
    data = body + f'{_SIGNATURE}{base64.b64encode(signature).decode()}"\n'.encode()
    bundle = Bundle.parse(data)
    bundle.verify([fingerprint(authority.internal.certificate)])
    write_file(out, data, mode=PUBLIC)
    return bundle


def keep_bundle(home: Path, authority: DeploymentAuthority | None = None) -> None:
    """Sign a home's bundle anew, after a change of its public files, where it has one and the authority is here.

    Raises as ``sign_bundle`` does.
    """
    folder = home / "authority"
    if authority is None and (folder / CONFIG).is_file():
        authority = DeploymentAuthority.load(folder)
    if authority is not None and (home / BUNDLE).exists():
        sign_bundle(BundleSource.of_home(home), authority, home / BUNDLE)


def _text(path: Path) -> str:
    try:
        return read_file(path, max_size=MAX_BUNDLE).decode("ascii")
    except UnicodeDecodeError:
        raise BundleError(f"{path} is no PEM file; name another.") from None


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
            raise BundleError("The bundle is of another trust domain; make another home of it.")
        path = folder / BUNDLE
        if path.exists():
            number = Bundle.parse(read_file(path, max_size=MAX_BUNDLE)).content.number
            if bundle.content.number < number:
                raise OlderBundleError(
                    f"The bundle has number {bundle.content.number}, and the home knows {number}; fetch the newest."
                )
        if bundle.content.revoked_identities:  # an older list would bring a revoked identity back
            known = load_revoked(folder / IDENTITY_LIST, bundle.anchors)
            known.newer(bundle.content.revoked_identities.encode())
        _write(folder, bundle)


def _write(folder: Path, bundle: Bundle) -> None:
    """Write what a bundle says; what was interrupted is written again by the next run."""
    content = bundle.content
    for name, file in _FILES.items():
        write_file(folder / file, getattr(content, name).encode(), mode=PUBLIC)
    if content.revoked_identities:
        write_file(folder / IDENTITY_LIST, content.revoked_identities.encode(), mode=PUBLIC)
    addresses = {"rm": content.rm, "cm": content.cm, "drm": content.drm}
    text = Template(HOME).substitute(trust_domain=content.trust_domain, **addresses)
    write_file(folder / "keyark.toml", text.encode(), mode=PRIVATE)
    write_file(folder / BUNDLE, bundle.data, mode=PUBLIC)


def _verify_signature(bundle: Bundle, believed: Collection[str]) -> None:
    """Raise BundleError unless the key of an internal CA with one of these fingerprints signed the bundle."""
    signed = context(LABEL, bundle.data[: bundle.data.rindex(_SIGNATURE.encode())])
    for anchor in bundle.anchors:
        key = anchor.public_key()
        if fingerprint(anchor) in believed and isinstance(key, ec.EllipticCurvePublicKey):
            with contextlib.suppress(InvalidSignature):
                verify_message(key, bundle.signature, signed)
                return
    raise BundleError(
        "The bundle is not signed by the internal CA with that fingerprint; ask the operator for both."
    )


def _check_log_key(text: str) -> None:
    try:
        load_pem_public_key(text.encode())
    except PARSING_ERRORS:
        raise BundleError("The bundle holds no key of a log; ask the operator for another.") from None
