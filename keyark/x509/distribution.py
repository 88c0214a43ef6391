"""Where a certificate's relying parties find what belongs to it: CRLs, issuer, OCSP, policies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from keyark.errors import ConfigurationError

_URL: Final = re.compile(r"https?://[!-~]{1,2000}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """URLs (http or https, ASCII) and policy OIDs that stand in every certificate of an issuer.

    Raises ConfigurationError where one of them is malformed.
    """

    crl_urls: tuple[str, ...] = ()
    ca_issuer_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    policy_oids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for url in (*self.crl_urls, *self.ca_issuer_urls, *self.ocsp_urls):
            if not _URL.fullmatch(url):
                raise ConfigurationError(
                    f"{url!r} is not a URL that a certificate may have; give one with http:// in ASCII."
                )
        for oid in self.policy_oids:
            object_identifier(oid)

    def extensions(self) -> list[x509.ExtensionType]:
        """Return the extensions that say so, none for what is not configured; none of them is critical."""
        extensions: list[x509.ExtensionType] = []
        if self.crl_urls:
            extensions.append(x509.CRLDistributionPoints([_point(url) for url in self.crl_urls]))
        if access := [
            *_access(AuthorityInformationAccessOID.OCSP, self.ocsp_urls),
            *_access(AuthorityInformationAccessOID.CA_ISSUERS, self.ca_issuer_urls),
        ]:
            extensions.append(x509.AuthorityInformationAccess(access))
        if self.policy_oids:
            policies = [x509.PolicyInformation(object_identifier(oid), None) for oid in self.policy_oids]
            extensions.append(x509.CertificatePolicies(policies))
        return extensions


def object_identifier(dotted: str) -> x509.ObjectIdentifier:
    """Return an OID given as dotted numbers; raises ConfigurationError."""
    try:
        return x509.ObjectIdentifier(dotted)
    except ValueError:
        raise ConfigurationError(f"{dotted!r} is not an object identifier; give dotted numbers.") from None


def _point(url: str) -> x509.DistributionPoint:
    name = x509.UniformResourceIdentifier(url)
    return x509.DistributionPoint(full_name=[name], relative_name=None, reasons=None, crl_issuer=None)


def _access(method: x509.ObjectIdentifier, urls: Sequence[str]) -> list[x509.AccessDescription]:
    return [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for url in urls]
