"""The issuing CA below somebody else's root: its request, and the chain that comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from pydantic import ConfigDict

from keyark.config import Config, load_config
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import keep_bundle
from keyark.deployment.commands import service_command
from keyark.errors import ConfigurationError
from keyark.files import UnwritableFileError, is_there, read_file, write_file
from keyark.folders import alone_in
from keyark.identity.bundles import BUNDLE
from keyark.keys.spki import encode_spki
from keyark.x509.authority import (
    CertificateRequestError,
    describe_name,
    load_certificate_request,
    requested_key_id,
)
from keyark.x509.certificates import load_certificates, save_certificates
from keyark.x509.chains import is_root, path_in_force, verify_chain

MAX_REQUEST: Final = 64 * 1024


class CaCertificateError(ConfigurationError):
    """The chain is not one that the issuing CA can work with; nothing was changed."""

    reason = "CA_CERTIFICATE"


class CmElsewhereError(ConfigurationError):
    """The CM, which has the CA's key, is on another host; nothing was changed."""

    reason = "CM_ELSEWHERE"


class _EarlierIssuer(Config):
    model_config = ConfigDict(extra="ignore")

    chain: str


class _Issuer(_EarlierIssuer):
    earlier: tuple[_EarlierIssuer, ...] = ()


class _CmFile(Config):
    """The CM's file, of which only where the chains are is looked at."""

    model_config = ConfigDict(extra="ignore")

    issuer: _Issuer


@dataclass(frozen=True, kw_only=True)
class Rollover:
    """The CA's next key: its request, and where its chain is, or is to be put once the request was signed."""

    request: Path
    chain: Path
    is_in_force: bool


@dataclass(frozen=True, kw_only=True)
class IssuingCa:
    """The issuing CA of the deployment below a folder; its key stays where the CM has it.

    The folder holds the CM's folder ``cm``. The DRM's folder and the authority may be on other hosts: ``to_carry`` says
    what goes there. Every call raises CmElsewhereError, with nothing changed, where the CM is not here.
    """

    home: Path

    def write_request(self, target: Path) -> x509.CertificateSigningRequest:
        """Write the certificate request (PKCS#10, PEM) for whoever signs it; returns it.

        It asks for the name, as encoded, and the subject key identifier that are in force. Raises ConfigurationError
        and ServiceCommandError.
        """
        request, own = self._request(), self.chain()[0]
        if _key_id(own) != requested_key_id(request) or not _is_same_name(own.subject, request.subject):
            service_command("cm", "ca-request", self._config)
            request = self._request()
        write_file(target, read_file(self._request_path, max_size=MAX_REQUEST), mode=0o644)
        return request

    def chain(self) -> list[x509.Certificate]:
        """Return the chain in force, the CA's own certificate first."""
        return path_in_force(load_certificates(self._chain_path))

    def roll_over(self, name: str, key_type: str) -> Rollover:
        """Give the CA another key, certified below the same root, from the CM's next start on.

        Where the root is not below this folder, the request waits to be signed: with its chain in place the same call
        goes on. Raises CaCertificateError and the errors of commands and files.
        """
        with alone_in(self._folder):
            return self._roll_over(name, key_type)

    def _roll_over(self, name: str, key_type: str) -> Rollover:
        made = json.loads(service_command("cm", "ca-key", self._config, "--name", name, "--ca-key", key_type))
        request, target = Path(made["request"]), Path(made["chain"])
        if not target.exists():
            if not (self.home / "authority" / "root-key.pem").is_file():
                return Rollover(request=request, chain=target, is_in_force=False)
            DeploymentAuthority.load(self.home / "authority").sign_issuing_ca(request, name, target)
        chain = path_in_force(load_certificates(target))
        if chain[-1] != self.chain()[-1]:
            raise CaCertificateError(
                "The chain of the next key ends at another root; have the current root sign it."
            )
        service_command("cm", "ca-switch", self._config, "--check")
        # The DRM and people have to know it before the CM signs with it.
        _put_in_force(self._known_by_others(), chain)
        service_command("cm", "ca-switch", self._config)
        keep_bundle(self.home)
        return Rollover(request=request, chain=target, is_in_force=True)

    def install(self, path: Path, *, now: int, is_fresh: bool) -> list[x509.Certificate]:
        """Put a chain (PEM, any order, the root included) in force for CM, DRM and people; returns it in its order.

        The chains of before are kept behind it; the file may have them too, as ``ca.pem`` has. With ``is_fresh`` the
        caller says that nothing was issued yet, so the CA's key identifier may be another one; that is asked of the CM.
        ``now`` is in seconds UTC. Raises CaCertificateError, CertificateChainError and the errors of files and
        commands, with nothing changed.
        """
        with alone_in(self._folder):  # a second one keeps what the first put in force
            chain = self._order(self._without_known(load_certificates(path)), now)
            self._check_own(chain[0])
            self._check_continuity(chain[0], is_fresh=is_fresh)
            _check_path_lengths(chain)
            own = {self._chain_path: load_certificates(self._chain_path)}
            _put_in_force(self._known_by_others() | own, chain)
            keep_bundle(self.home)
        return chain

    @property
    def public_chains(self) -> Path:
        """Where the file of chains is that the DRM and people need: those in force and of before, of every CA key."""
        return self.home / "ca.pem"

    def to_carry(self) -> list[str]:
        """Return what is left to do on other hosts after a change, in its order, a line each."""
        lines = []
        if not self.has_drm:
            lines.append(
                f"on the DRM's host: copy {self.public_chains} over drm/ca.pem, and give "
                "`keyark-drm reload drm/drm.toml`"
            )
        if not (is_there(self.home / "authority") and is_there(self.home / BUNDLE)):
            lines.append(
                f"on the authority's machine: sign a bundle with {self.public_chains} "
                "(`keyark home bundle --ca ca.pem …`), which homes take with `keyark home update`"
            )
        return lines

    @property
    def has_drm(self) -> bool:
        """Whether the DRM is on this host too."""
        return is_there(self._drm_folder)

    def _known_by_others(self) -> dict[Path, list[x509.Certificate]]:
        """Return the files of chains on this host beside the CM's, with what each has and is to keep."""
        issuer = load_config(Path(self._config), _CmFile).issuer
        ours = [self._folder / one.chain for one in (issuer, *issuer.earlier)]
        known = {self.public_chains: _loaded(self.public_chains, *ours)}
        if self.has_drm:
            drm = self._drm_folder / "ca.pem"
            known[drm] = _loaded(drm)
        return known

    @property
    def _folder(self) -> Path:
        folder = self.home / "cm"
        if not is_there(folder):
            raise CmElsewhereError(
                f"{folder} does not exist here; the CA's key is on the CM's host. Run the command there with "
                "--home and the folder that contains cm/, or make a request there with `keyark-cm ca-request "
                "cm/cm.toml`."
            )
        return folder

    @property
    def _drm_folder(self) -> Path:
        return self.home / "drm"

    @property
    def _config(self) -> str:
        return str(self._folder / "cm.toml")

    @property
    def _chain_path(self) -> Path:
        return self._folder / load_config(Path(self._config), _CmFile).issuer.chain

    @property
    def _request_path(self) -> Path:
        return self._chain_path.with_suffix(".csr")

    def _request(self) -> x509.CertificateSigningRequest:
        try:
            return load_certificate_request(read_file(self._request_path, max_size=MAX_REQUEST))
        except CertificateRequestError:
            raise ConfigurationError(
                f"{self._request_path} is not a certificate request; restore it."
            ) from None

    def _without_known(self, certificates: Sequence[x509.Certificate]) -> Sequence[x509.Certificate]:
        """Leave out chains of before, where a file has them beside the new one, as ``ca.pem`` has."""
        key = encode_spki(self._request().public_key())
        own = [one for one in certificates if encode_spki(one.public_key()) == key]
        known = load_certificates(self._chain_path)
        new = [one for one in own if one not in known]
        if len(own) < 2 or len(new) > 1:
            return certificates
        first = (new or own)[0]
        path = path_in_force([first, *(one for one in certificates if one != first)])
        return [*path, *(one for one in certificates if one not in path and one not in known)]

    def _order(self, certificates: Sequence[x509.Certificate], now: int) -> list[x509.Certificate]:
        """Return the path from the CA's own certificate to the root; every certificate that was given is on it."""
        key = encode_spki(self._request().public_key())
        own = [certificate for certificate in certificates if encode_spki(certificate.public_key()) == key]
        roots = [certificate for certificate in certificates if is_root(certificate)]
        if len(own) != 1 or len(roots) != 1 or own == roots:
            raise CaCertificateError(
                f"The chain has {len(own)} certificates for the CA's key and {len(roots)} roots; give the CA's own, "
                "all above it, and the root, each once."
            )
        others = [certificate for certificate in certificates if certificate not in (*own, *roots)]
        path = verify_chain(own[0], intermediates=others, anchors=roots, at=now)
        if len(path) != len(certificates):
            raise CaCertificateError(
                "The file has certificates that do not belong to the chain; leave them out."
            )
        return path

    def _check_own(self, own: x509.Certificate) -> None:
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
            raise CaCertificateError("The certificate is not that of a CA; have it issued with CA:TRUE.")
        if _key_id(own) is None:
            raise CaCertificateError("The certificate has no subject key identifier (RFC 5280 §4.2.1.2).")

    def _check_continuity(self, own: x509.Certificate, *, is_fresh: bool) -> None:
        """The name, byte by byte, and the key identifier stay, unless no certificate names them yet."""
        present = self.chain()[0]
        if is_fresh:
            self._check_nothing_issued(
                "--fresh is only for a CA that has issued nothing yet, but this one has. Have the "
                "certificate issued with the name and subject key identifier of a new `keyark ca request`, "
                "and install it without --fresh."
            )
        elif _key_id(own) != _key_id(present):
            raise CaCertificateError(
                f"The certificate has the subject key identifier {show_key_id(own)}, but all issued "
                f"certificates name the current one, {show_key_id(present)}. Have it issued with that, as a "
                "new `keyark ca request` asks. If nothing was issued yet, use --fresh."
            )
        if not _is_same_name(own.subject, present.subject):
            self._check_nothing_issued(
                f"The certificate is for {describe_name(own.subject)}, but the CA has issued certificates as "
                f"{describe_name(present.subject)}, and programs compare the bytes. Have the root keep the "
                "string types of a new `keyark ca request`, or give the CA a new key with `keyark ca "
                "rollover`."
            )

    def _check_nothing_issued(self, refusal: str) -> None:
        """Ask the CM; one that runs issues under the present name until it is stopped."""
        answer = json.loads(service_command("cm", "ca-issued", self._config))
        if answer["issued"]:
            raise CaCertificateError(refusal)
        if answer["running"]:
            raise CaCertificateError(
                "The CA would get another name or key identifier, while the running CM goes on issuing under "
                "the current one. Stop the services, install the chain, and start them."
            )


def show_key_id(certificate: x509.Certificate) -> str:
    """Return a certificate's subject key identifier as openssl shows it; "none" without one."""
    found = _key_id(certificate)
    return found.hex(":").upper() if found else "none"


def _key_id(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    return found.digest if isinstance(found, x509.SubjectKeyIdentifier) else None


def _is_same_name(one: x509.Name, other: x509.Name) -> bool:
    """Whether two names have the same bytes, string types included; that they read alike is not enough."""
    return one.public_bytes() == other.public_bytes()


def _loaded(*paths: Path) -> list[x509.Certificate]:
    """Return the certificates of the files that there are, each once."""
    return list(dict.fromkeys(one for path in paths if is_there(path) for one in load_certificates(path)))


def _put_in_force(
    files: Mapping[Path, Sequence[x509.Certificate]], chain: Sequence[x509.Certificate]
) -> None:
    """Let files of chains begin and end with this one, and keep what each had between; all of them, or none."""
    for path in files:
        if not os.access(path.parent, os.W_OK):
            raise UnwritableFileError(
                f"{path} cannot be written; run the command as the owner of all files, or as root."
            )
    for path, had in files.items():
        save_certificates(path, [*chain[:-1], *(one for one in had if one not in chain), chain[-1]])


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
                f"{certificate.subject.rfc4514_string()!r} permits {limit} CAs below it, but there are "
                f"{below}."
            )
