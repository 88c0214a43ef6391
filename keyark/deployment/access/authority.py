"""The authority of a deployment: the internal CA for mutual TLS and the root above the issuing CA.

Its folder can be taken offline once the deployment runs; it is needed again for new identities, renewals and a
new issuing CA only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import Field

from keyark.clock import SECONDS_PER_DAY
from keyark.config import Config, load_config
from keyark.deployment.access.issued import IssuedIdentities, IssuedIdentity
from keyark.errors import ConfigurationError
from keyark.files import PRIVATE, PUBLIC, read_file, write_file, write_new_file
from keyark.folders import filling
from keyark.identity.certificates import (
    check_own,
    identity_of,
    issue_identity,
    renew_identity,
    request_identity,
)
from keyark.identity.files import IdentityFiles
from keyark.identity.revoked import (
    IDENTITY_LIST,
    IdentityRevokedError,
    RevokedIdentities,
    load_revoked,
)
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId, check_trust_domain
from keyark.keys.key_types import KeyType, generate_signing, narrow_signing_key
from keyark.keys.private_keys import load_private_key
from keyark.keys.reencryption import begin_encrypted
from keyark.service.program.initialization import new_signing_key
from keyark.x509.authority import (
    Authority,
    CertificateRequestError,
    ca_name,
    create_internal_ca,
    create_root,
    issue_ca,
    load_certificate_request,
)
from keyark.x509.certificates import Validity, load_certificates, save_certificates

YEAR: Final = 365 * SECONDS_PER_DAY
INTERNAL_CA_SECONDS: Final = 15 * YEAR
ROOT_SECONDS: Final = 25 * YEAR
ISSUING_CA_SECONDS: Final = 12 * YEAR
SERVICE_SECONDS: Final = 2 * YEAR
PERSON_SECONDS: Final = 2 * YEAR
TRANSPORT_DAYS: Final = 30
MAX_REQUEST: Final = 64 * 1024
CONFIG: Final = "authority.toml"
REQUEST: Final = "identity.csr"
AUTHORITY_TOML: Final = """\
# The authority signs for this trust domain only.
trust_domain = "$trust_domain"
# How many days a transport certificate is valid. A reader without a newer transport key trusts a stolen one until then.
transport_days = $transport_days
"""


class InternalCaEndsError(ConfigurationError):
    """The internal CA ends before a renewed certificate would be of use."""

    reason = "INTERNAL_CA_ENDS"


class AuthorityConfig(Config):
    """authority.toml: nothing in it is secret."""

    trust_domain: str
    transport_days: Annotated[int, Field(ge=1, le=397)] = TRANSPORT_DAYS


@dataclass(frozen=True, kw_only=True)
class DeploymentAuthority:
    """Signs what the services and people of one trust domain ask for."""

    trust_domain: str
    folder: Path
    internal: Authority
    transport_days: int = TRANSPORT_DAYS

    @classmethod
    def load(cls, folder: Path) -> DeploymentAuthority:
        """Open the authority in a folder, whose keys only their owner may read.

        Raises ConfigurationError where the folder is none, and the errors of keys and certificates that do not load.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise ConfigurationError(
                f"{folder} is not an authority's folder, since it has no {CONFIG}. Name one with --authority "
                "or --home, or make one with `keyark authority init`."
            )
        config = load_config(path, AuthorityConfig)
        return cls(
            trust_domain=config.trust_domain,
            folder=folder,
            internal=_load_authority(folder, "internal-ca"),
            transport_days=config.transport_days,
        )

    @classmethod
    def create(
        cls, folder: Path, *, trust_domain: str, root_key_type: KeyType, key_password: str | None
    ) -> DeploymentAuthority:
        """Make both CAs in a new folder: internal-ca.pem, root.pem, and their keys beside them (0600).

        The keys are encrypted under the password of the source ``key_password`` (see ``keyark.keys.at_rest``), if any.
        """
        check_trust_domain(trust_domain, field="--trust-domain")
        with filling(folder):
            if key_password is not None:
                begin_encrypted(folder, key_password)
            now = int(time.time())
            internal = create_internal_ca(
                new_signing_key(folder / "internal-ca-key.pem", KeyType.EC_P256),
                subject=ca_name(f"keyark internal CA of {trust_domain}"[:64]),
                validity=Validity.starting(now, lifetime_seconds=INTERNAL_CA_SECONDS),
            )
            root = create_root(
                new_signing_key(folder / "root-key.pem", root_key_type),
                subject=ca_name(f"Root CA of {trust_domain}"[:64]),
                validity=Validity.starting(now, lifetime_seconds=ROOT_SECONDS),
            )
            save_certificates(folder / "internal-ca.pem", [internal.certificate])
            save_certificates(folder / "root.pem", [root.certificate])
            config = Template(AUTHORITY_TOML).substitute(
                trust_domain=trust_domain, transport_days=TRANSPORT_DAYS
            )
            write_new_file(folder / CONFIG, config.encode(), mode=PRIVATE)
        return cls(trust_domain=trust_domain, folder=folder, internal=internal)

    def sign_identity(self, request: Path, identity: SpiffeId, certificate: Path) -> None:
        """Issue the certificate of a service, a person or the transport key, and write it as PEM.

        Raises CertificateRequestError unless the request asks for this identity and nothing else, UnsupportedKeyError,
        IdentityRevokedError for a key that had a certificate which is revoked, InternalCaEndsError and
        IssuerValidityError; the file is written only if it does not.
        """
        is_transport = identity.role == TRANSPORT_ROLE
        validity = self._transport_validity() if is_transport else self._identity_validity(SERVICE_SECONDS)
        issued = issue_identity(self.internal, _load_request(request), identity=identity, validity=validity)
        self._check_key(issued)
        self.issued.record(issued)
        save_certificates(certificate, [issued])

    def renew_identity(self, certificate: Path) -> x509.Certificate:
        """Replace a service's or person's certificate (PEM) in its file by a new one for the same key; returns it.

        For a key that is not at hand: encrypted, or on its owner's machine.

        Raises CertificateRequestError for one that is not from this authority, IdentityRevokedError for a revoked one,
        InternalCaEndsError, and the errors of files.
        """
        present = load_certificates(certificate)[0]
        renewed = renew_identity(self.internal, present, validity=self._longer(present))
        self.revoked().check(present)
        self._check_key(renewed)
        self.issued.record(renewed)
        save_certificates(certificate, [renewed])
        return renewed

    def replace_identity(self, files: IdentityFiles) -> x509.Certificate:
        """Make a new key for a service or person, issue its certificate, and switch both; returns the certificate.

        The request of the older key is replaced too.
        Raises CertificateRequestError for a certificate that is not from this authority, PasswordRequiredError for an
        encrypted key, which stays as it is, InternalCaEndsError, and the errors of files.
        """
        files.finish()
        _, (present, *_) = files.load()
        key, validity = generate_signing(KeyType.EC_P256), self._longer(present)
        renewed = renew_identity(self.internal, present, validity=validity, new_key=key.public_key())
        self.issued.record(renewed)
        files.replace(key, [renewed])
        request = request_identity(key, identity_of(renewed)).public_bytes(Encoding.PEM)
        write_file(files.certificate.with_name(REQUEST), request, mode=PUBLIC)
        return renewed

    @property
    def issued(self) -> IssuedIdentities:
        """The record of what the internal CA signed."""
        return IssuedIdentities(self.folder)

    def revoked(self) -> RevokedIdentities:
        """Read the newest list of revoked identities; raises IdentityListError and the errors of files."""
        return load_revoked(self.folder / IDENTITY_LIST, [self.internal.certificate])

    def own(self, certificate: x509.Certificate) -> x509.Certificate:
        """Return a certificate that the internal CA issued; raises CertificateRequestError for another's."""
        return check_own(self.internal, certificate)

    def _check_key(self, certificate: x509.Certificate) -> None:
        """Raise IdentityRevokedError for a key of a revoked certificate, which may be in other hands."""
        revoked, key = self.revoked().serials, IssuedIdentity.of(certificate).spki_sha256
        if any(one.spki_sha256 == key and int(one.serial, 16) in revoked for one in self.issued.entries()):
            raise IdentityRevokedError(
                "The certificate of this key was revoked, so the key gets no other one; make a new key and "
                "request."
            )

    def sign_issuing_ca(self, request: Path, name: str, certificate: Path) -> None:
        """Issue the issuing CA's certificate, and write it followed by the root, as PEM."""
        root = _load_authority(self.folder, "root")
        validity = self._validity(root, ISSUING_CA_SECONDS)
        issued = issue_ca(root, _load_request(request), subject=ca_name(name), validity=validity)
        save_certificates(certificate, [issued, root.certificate])

    def _longer(self, present: x509.Certificate) -> Validity:
        """How long a renewed certificate is valid; raises where the internal CA lets it be no longer."""
        end = self.internal.validity.not_after
        validity = self._identity_validity(SERVICE_SECONDS)
        if validity.not_after == end and Validity.of(present).not_after >= end:
            raise self._ends()
        return validity

    def _identity_validity(self, seconds: int) -> Validity:
        """How long a certificate of the internal CA is valid; raises InternalCaEndsError where the CA has ended."""
        if self.internal.validity.not_after < time.time():
            raise self._ends()
        return self._validity(self.internal, seconds)

    def _ends(self) -> InternalCaEndsError:
        _, until = self.internal.validity.dates()
        return InternalCaEndsError(
            f"The internal CA ends on {until:%Y-%m-%d}, so nothing can be valid longer; renew it first "
            "with `keyark authority renew`."
        )

    def _transport_validity(self) -> Validity:
        """A validity that begins later than those of all transport certificates before, so that the newest is known."""
        validity, now = self._identity_validity(self.transport_days * SECONDS_PER_DAY), int(time.time())
        path = SpiffeId(self.trust_domain, TRANSPORT_ROLE).path
        last = max((e.not_before for e in self.issued.entries() if e.identity == path), default=0)
        return replace(validity, not_before=max(validity.not_before, min(last + 1, now)))

    def _validity(self, issuer: Authority, seconds: int) -> Validity:
        return Validity.starting(int(time.time()), lifetime_seconds=seconds, within=issuer.validity)


def _load_authority(folder: Path, name: str) -> Authority:
    return Authority(
        certificate=load_certificates(folder / f"{name}.pem")[0],
        private_key=narrow_signing_key(load_private_key(folder / f"{name}-key.pem")),
    )


def _load_request(path: Path) -> x509.CertificateSigningRequest:
    try:
        return load_certificate_request(read_file(path, max_size=MAX_REQUEST))
    except CertificateRequestError:
        raise ConfigurationError(f"{path} is not a certificate signing request; make it again.") from None
