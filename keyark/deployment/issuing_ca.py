"""The issuing CA below somebody else's root: its request, and the chain that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from keyark.errors import ConfigurationError
from keyark.pki.certificates import load_certificates, save_certificates
from keyark.pki.chains import verify_chain
from keyark.pki.files import read_file, write_file
from keyark.pki.spki import encode_spki

MAX_REQUEST: Final = 64 * 1024


class CaCertificateError(ConfigurationError):
    """The chain is not one that the issuing CA can work with; nothing was changed."""

    reason = "CA_CERTIFICATE"


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
        return load_certificates(self.home / "cm" / "ca.pem")

    def install(self, path: Path, *, now: int, is_fresh: bool) -> list[x509.Certificate]:
        """Put a chain (PEM, any order, the root included) in place for CM, DRM and people; returns it in its order.

        With ``is_fresh`` nothing was issued yet, so the CA's key identifier may be another one. ``now`` is in seconds
        UTC. Raises CaCertificateError, CertificateChainError and the errors of files, with nothing changed.
        """
        chain = self._order(load_certificates(path), now)
        self._check_own(chain[0], is_fresh=is_fresh)
        _check_path_lengths(chain)
        for target in (self.home / "ca.pem", self.home / "drm" / "ca.pem", self.home / "cm" / "ca.pem"):
            save_certificates(target, chain)
        return chain

    @property
    def _request_path(self) -> Path:
        return self.home / "cm" / "ca.csr"

    def _request(self) -> x509.CertificateSigningRequest:
        try:
            return x509.load_pem_x509_csr(read_file(self._request_path, max_size=MAX_REQUEST))
        except ValueError:
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
