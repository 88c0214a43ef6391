"""The authority answers the requests of many at once: of services, whose files hold several, and of people."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import BundleSource, sign_bundle
from keyark.files import PUBLIC, read_file, write_new_file
from keyark.identity.bundles import Bundle
from keyark.identity.spiffe import SERVICE_ROLES, TRANSPORT_ROLE, SpiffeId
from keyark.service.program.answers import (
    CA,
    MAX_SIZE,
    AnswerContent,
    AnswerError,
    HostRequest,
    request_fingerprint,
    write_answer,
)
from keyark.x509.certificates import encode_pem_certificates


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The files with requests that the operator expects, by the name of whom each has to come from."""

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, paths: Mapping[str, Path]) -> Asked:
        """Read the files; raises the errors of files."""
        return cls(files={name: read_file(path, max_size=MAX_SIZE) for name, path in paths.items()})

    @property
    def fingerprints(self) -> dict[str, str]:
        """What the requesters saw when they made their requests."""
        return {name: request_fingerprint(data) for name, data in self.files.items()}

    def check(self, expected: Collection[str]) -> None:
        """Raise AnswerError unless the requesters told each fingerprint, and no other one was told."""
        found = self.fingerprints
        for name, one in found.items():
            if one not in expected:
                raise AnswerError(
                    f"The request of {name} has the fingerprint {one}, which is not among the expected "
                    f"ones; ask {name} for both again."
                )
        if set(expected) != set(found.values()):
            raise AnswerError(
                "A fingerprint belongs to none of these requests; name all files, or leave it out."
            )

    @property
    def whole(self) -> bool:
        """Whether all three services are among them, so that a bundle can be made."""
        return set(SERVICE_ROLES) <= set(self.files)


def answer(asked: Asked, authority: DeploymentAuthority, *, ca_name: str, out: Path) -> AnswerContent:
    """Issue everything that was asked for, and write one signed answer for all of them; returns what it says.

    Raises AnswerError, and the errors of ``sign_identity``, with no answer written, where a file asks for anything but
    what is expected of its name.
    """
    hosts = {name: _host_request(name, data) for name, data in asked.files.items() if name in SERVICE_ROLES}
    requests = {
        name: data.decode(errors="replace") for name, data in asked.files.items() if name not in hosts
    }
    for host in hosts.values():
        requests |= host.requests
    certificates = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, text in requests.items():
            request, certificate = folder / "asked.csr", folder / "issued.pem"
            request.unlink(missing_ok=True)
            write_new_file(request, text.encode(), mode=PUBLIC)
            if name == CA:
                authority.sign_issuing_ca(request, ca_name, certificate)
            else:
                authority.sign_identity(request, SpiffeId(authority.trust_domain, name), certificate)
            certificates[name] = certificate.read_text()
    content = AnswerContent(
        version=1,
        trust_domain=authority.trust_domain,
        trust_anchor=encode_pem_certificates([authority.internal.certificate]).decode(),
        certificates=certificates,
    )
    write_answer(out, content, authority.internal.private_key)
    return content


def bundle_of(
    asked: Asked,
    issued: AnswerContent,
    authority: DeploymentAuthority,
    *,
    addresses: Mapping[str, str],
    out: Path,
) -> Bundle:
    """Sign the bundle of a deployment whose three services were answered; raises as ``sign_bundle`` does."""
    with tempfile.TemporaryDirectory() as temporary:
        texts = {
            "ca": issued.certificates[CA],
            "transport": issued.certificates[TRANSPORT_ROLE],
            "rm_log_key": _host_request("rm", asked.files["rm"]).log_key,
            "cm_log_key": _host_request("cm", asked.files["cm"]).log_key,
        }
        paths = {name: Path(temporary) / f"{name}.pem" for name in texts}
        for name, text in texts.items():
            write_new_file(paths[name], text.encode(), mode=PUBLIC)
        anchor = authority.folder / "internal-ca.pem"
        source = BundleSource(
            rm=addresses["rm"], cm=addresses["cm"], drm=addresses["drm"], trust_anchor=anchor, **paths
        )
        return sign_bundle(source, authority, out)


def _host_request(name: str, data: bytes) -> HostRequest:
    read = HostRequest.parse(data)
    if read.role != name:
        raise AnswerError(
            f"The file has the requests of the {read.role}, not of the {name}; name the right file."
        )
    return read
