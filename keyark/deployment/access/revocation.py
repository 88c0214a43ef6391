"""Revokes identities: the authority signs a list, and the services and people of a deployment get it as a file."""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.config import MAX_CONFIG_SIZE
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import keep_bundle
from keyark.deployment.access.identities import identity_files
from keyark.deployment.access.issued import IssuedIdentity
from keyark.errors import ConfigurationError, KeyarkError, NotFoundError
from keyark.files import PUBLIC, read_file, write_file
from keyark.folders import alone_in
from keyark.identity.revoked import IDENTITY_LIST, MAX_SIZE
from keyark.identity.spiffe import SERVICE_ROLES, TRANSPORT_ROLE
from keyark.keys.signatures import signature_scheme
from keyark.x509.certificates import load_certificates


@dataclass(frozen=True, kw_only=True)
class IdentityRevocation:
    """An authority, and the deployment below one folder that gets its lists, where there is one on this machine."""

    authority: DeploymentAuthority
    home: Path | None

    def revoke(
        self, names: Sequence[str], reason: x509.ReasonFlags, *, certificates: Sequence[Path] = ()
    ) -> list[IssuedIdentity]:
        """Revoke all certificates in force of these identities ("rm", "client/alice"), and those in these files.

        Returns what was revoked now. Where all of it was revoked before, the list is only handed out again. Raises
        NotFoundError, with nothing changed, for an identity that no certificate is known of, and the errors of files.
        """
        with alone_in(self.authority.folder):
            self._write_down_known()
            named = {self._write_down(path).serial for path in certificates}
            asked = [self._of(name) for name in names]
            wanted = {entry.serial: entry for entries in asked for entry in entries}
            wanted |= {one.serial: one for one in self.authority.issued.entries() if one.serial in named}
            revoked = self.authority.revoked().serials
            fresh = [one for one in wanted.values() if int(one.serial, 16) not in revoked]
            if fresh:
                self._sign(fresh, reason)
            self.distribute()
        return fresh

    def sign_again(self) -> None:
        """Have the list name the internal CA's present end as its next update, where there is a list.

        The caller is alone in the authority's folder.
        """
        if (self.authority.folder / IDENTITY_LIST).exists():
            self._sign((), x509.ReasonFlags.unspecified)
            self.distribute()

    def distribute(self) -> list[Path]:
        """Copy the authority's list to the services and people of the deployment; returns the files."""
        source = self.authority.folder / IDENTITY_LIST
        if self.home is None or not source.exists():
            return []
        data = read_file(source, max_size=MAX_SIZE)
        targets = [self.home / IDENTITY_LIST] if (self.home / "keyark.toml").exists() else []
        targets += [
            target
            for role in SERVICE_ROLES
            if (target := _list_of(self.home / role / f"{role}.toml")) is not None
        ]
        for target in targets:
            write_file(target, data, mode=PUBLIC)
        keep_bundle(self.home, self.authority)
        return targets

    def _write_down_known(self) -> None:
        """Write down the certificates that lie here, for an authority of an earlier release wrote nothing down."""
        for path in identity_files(self.home).values() if self.home else ():
            with contextlib.suppress(KeyarkError):  # a bad file of somebody else stops no revocation
                self._write_down(path)

    def _write_down(self, path: Path) -> IssuedIdentity:
        certificate = self.authority.own(load_certificates(path)[0])
        self.authority.issued.record(certificate)
        return IssuedIdentity.of(certificate)

    def _of(self, name: str) -> list[IssuedIdentity]:
        if name == TRANSPORT_ROLE:
            raise ConfigurationError(
                "A transport key is not revoked here; use `keyark transport-key retire`."
            )
        entries = [entry for entry in self.authority.issued.entries() if entry.identity == name]
        if not entries:
            raise NotFoundError(
                f"No certificate of {name!r} is known here; name its file with --certificate."
            )
        return [entry for entry in entries if entry.not_after >= time.time()]

    def _sign(self, fresh: Sequence[IssuedIdentity], reason: x509.ReasonFlags) -> None:
        """Sign the next list: all that the last one has, and these."""
        ca, path, now = self.authority.internal, self.authority.folder / IDENTITY_LIST, datetime.now(UTC)
        builder, number = x509.CertificateRevocationListBuilder(), 1
        if path.exists():
            last = x509.load_pem_x509_crl(read_file(path, max_size=MAX_SIZE))
            number += last.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            for entry in last:
                builder = builder.add_revoked_certificate(entry)
        for one in fresh:
            entry_builder = x509.RevokedCertificateBuilder(int(one.serial, 16), now)
            if reason is not x509.ReasonFlags.unspecified:  # RFC 5280 §5.3.1: then left out
                entry_builder = entry_builder.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry_builder.build())
        identifier = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        signed = (
            builder.issuer_name(ca.certificate.subject)
            .last_update(now)
            .next_update(ca.certificate.not_valid_after_utc)
            .add_extension(authority_key, critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
            .sign(ca.private_key, signature_scheme(ca.private_key).hash_algorithm)
        )
        write_file(path, signed.public_bytes(Encoding.PEM), mode=PUBLIC)


def _list_of(config: Path) -> Path | None:
    """Return where a service of this machine takes its list from, None where there is no such service."""
    if not config.exists():
        return None
    try:
        service = tomllib.loads(read_file(config, max_size=MAX_CONFIG_SIZE).decode())["service"]
        named = service.get("revoked_identities")
        return config.parent / (named or Path(service["identity_key"]).parent / IDENTITY_LIST)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise ConfigurationError(
            f"{config} does not name identity_key in its section [service]; correct it."
        ) from None
