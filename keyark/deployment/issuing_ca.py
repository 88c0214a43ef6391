"""The issuing CA below somebody else's root: its request, and the chain that comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import ConfigDict

from keyark.config import Config, load_config
from keyark.deployment.authority import DeploymentAuthority
from keyark.deployment.commands import service_command
from keyark.errors import ConfigurationError
from keyark.pki.authority import CertificateRequestError, load_certificate_request
from keyark.pki.certificates import load_certificates, save_certificates
from keyark.pki.chains import lowest, verify_chain
from keyark.pki.files import read_file, write_file
from keyark.pki.spki import encode_spki

MAX_REQUEST: Final = 64 * 1024


class CaCertificateError(ConfigurationError):
    """The chain is not one that the issuing CA can work with; nothing was changed."""

    reason = "CA_CERTIFICATE"


class _Issuer(Config):
    model_config = ConfigDict(extra="ignore")

    chain: str


class _CmFile(Config):
    """The CM's file, of which only where the chain is is looked at."""

    model_config = ConfigDict(extra="ignore")

    issuer: _Issuer


@dataclass(frozen=True, kw_only=True)
class IssuingCa:
    """The issuing CA of the deployment below a folder; its key stays where the CM has it."""

    home: Path

    def write_request(self, target: Path) -> x509.CertificateSigningRequest:
        """Write the certificate request (PKCS#10, PEM) for whoever signs it; returns it. Raises ConfigurationError."""
        request = self._request()
        write_file(target, read_file(self._request_path, max_size=MAX_REQUEST), mode=0o644)
        return request

    def chain(self) -> list[x509.Certificate]:
        """Return the chain in force, the CA's own certificate first."""
        return load_certificates(self._chain_path)

    def roll_over(self, name: str, key_type: str) -> Path | None:
        """Give the CA another key, certified below the same root, from the CM's next start on; returns its chain.

        Where the root is not below this folder, None is returned and the request waits to be signed: with its chain in
        place the same call goes on. Raises CaCertificateError and the errors of commands and files.
        """
        config = str(self.home / "cm" / "cm.toml")
        made = json.loads(service_command("cm", "ca-key", config, "--name", name, "--ca-key", key_type))
        request, target = Path(made["request"]), Path(made["chain"])
        if not target.exists():
            if not (self.home / "authority" / "root-key.pem").is_file():
                return None
            DeploymentAuthority.load(self.home / "authority").sign_issuing_ca(request, name, target)
        chain = load_certificates(target)
        known = load_certificates(self.home / "ca.pem")
        if chain[-1] != known[-1]:
            raise CaCertificateError("The next key's chain ends at another root; have the same root sign it.")
        # The DRM and people have to know it before the CM signs with it.
        known = [*chain[:-1], *(one for one in known if one not in chain), chain[-1]]
        for path in (self.home / "ca.pem", self.home / "drm" / "ca.pem"):
            save_certificates(path, known)
        service_command("cm", "ca-switch", config)
        return target

    def install(self, path: Path, *, now: int, is_fresh: bool) -> list[x509.Certificate]:
        """Put a chain (PEM, any order, the root included) in place for CM, DRM and people; returns it in its order.

        With ``is_fresh`` nothing was issued yet, so the CA's key identifier may be another one. ``now`` is in seconds
        UTC. Raises CaCertificateError, CertificateChainError and the errors of files, with nothing changed.
        """
        if len(lowest(load_certificates(self.home / "ca.pem"))) > 1:
            raise CaCertificateError(
                "The CA has several keys, whose certificates lead to one root; another root is for a CA with one."
            )
        chain = self._order(load_certificates(path), now)
        self._check_own(chain[0], is_fresh=is_fresh)
        _check_path_lengths(chain)
        for target in (self.home / "ca.pem", self.home / "drm" / "ca.pem", self._chain_path):
            save_certificates(target, chain)
        return chain

    @property
    def _chain_path(self) -> Path:
        config = self.home / "cm" / "cm.toml"
        return self.home / "cm" / load_config(config, _CmFile).issuer.chain

    @property
    def _request_path(self) -> Path:
        return self._chain_path.with_suffix(".csr")

    def _request(self) -> x509.CertificateSigningRequest:
        try:
            return load_certificate_request(read_file(self._request_path, max_size=MAX_REQUEST))
        except CertificateRequestError:
            raise ConfigurationError(
                f"{self._request_path} holds no certificate request; restore it."
            ) from None

    def _order(self, certificates: Sequence[x509.Certificate], now: int) -> list[x509.Certificate]:
        """Return the path from the CA's own certificate to the root; every certificate that was given is on it."""
        key = encode_spki(self._request().public_key())
        own = [certificate for certificate in certificates if encode_spki(certificate.public_key()) == key]
        roots = [certificate for certificate in certificates if _is_root(certificate)]
        if len(own) != 1 or len(roots) != 1 or own == roots:
            raise CaCertificateError(
                f"The chain has {len(own)} certificates for the CA's key and {len(roots)} roots; give the CA's own, "
                "all above it, and the root, each once."
            )
        others = [certificate for certificate in certificates if certificate not in (*own, *roots)]
        path = verify_chain(own[0], intermediates=others, anchors=roots, at=now)
        if len(path) != len(certificates):
            raise CaCertificateError("The chain has certificates that do not belong to it; leave them out.")
        return path

    def _check_own(self, own: x509.Certificate, *, is_fresh: bool) -> None:
        if own.subject != self._request().subject:
            raise CaCertificateError(
                f"The certificate is for {own.subject.rfc4514_string()!r}; have it issued for the name in the request, "
                "which all certificates name as their issuer."
            )
        usage = _extension(own, x509.KeyUsage)
        if not (isinstance(usage, x509.KeyUsage) and usage.key_cert_sign and usage.crl_sign):
            raise CaCertificateError(
                "The certificate may not sign certificates and CRLs; have it issued with keyCertSign and cRLSign."
            )
        basic = _extension(own, x509.BasicConstraints)
        if not (isinstance(basic, x509.BasicConstraints) and basic.ca):
            raise CaCertificateError("The certificate is no CA's; have it issued with CA:TRUE.")
        key_id = _extension(own, x509.SubjectKeyIdentifier)
        if not isinstance(key_id, x509.SubjectKeyIdentifier):
            raise CaCertificateError("The certificate has no subject key identifier (RFC 5280 §4.2.1.2).")
        present = _extension(self.chain()[0], x509.SubjectKeyIdentifier)
        if key_id != present and not is_fresh:
            raise CaCertificateError(
                "The certificate has another subject key identifier than the present one, which all certificates name; "
                "have it issued with that, or give --fresh where nothing was issued yet."
            )


def _is_root(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _extension(
    certificate: x509.Certificate, extension_type: type[x509.ExtensionType]
) -> x509.ExtensionType | None:
    try:
        return certificate.extensions.get_extension_for_class(extension_type).value
    except x509.ExtensionNotFound:
        return None


def _check_path_lengths(chain: Sequence[x509.Certificate]) -> None:
    """Each CA above permits those below it, the issuing CA among them."""
    for below, certificate in enumerate(chain):
        basic = _extension(certificate, x509.BasicConstraints)
        limit = basic.path_length if isinstance(basic, x509.BasicConstraints) else None
        if limit is not None and limit < below:
            raise CaCertificateError(
                f"{certificate.subject.rfc4514_string()!r} permits {limit} CAs below it and there are {below}."
            )
