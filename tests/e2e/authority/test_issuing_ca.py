"""The issuing CA below a root that openssl runs: its request, what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.x509.certificates import load_certificates, save_certificates
from tests.support.keys.openssl import openssl
from tests.support.running.deployment import copy_deployment
from tests.support.running.processes import init_home, keyark, up

CA_EXTENSIONS = """
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = {key_id}
authorityKeyIdentifier = keyid
"""


class Root:
    """Somebody else's root."""

    def __init__(self, folder: Path, *, constraint: str = "critical,CA:TRUE") -> None:
        self.folder, self.key, self.certificate = folder, folder / "root.key", folder / "root.pem"
        openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", self.key)
        openssl(
            "req", "-x509", "-new", "-key", self.key, "-sha384", "-days", "3650", "-subj", "/O=Elsewhere/CN=Root",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", f"basicConstraints={constraint}",
            "-out", self.certificate, "-config", self._config(),
        )  # fmt: skip

    def _config(self) -> Path:
        path = self.folder / "req.cnf"
        path.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        return path

    def sign(self, request: Path, *, extensions: str, days: int = 3000, subject: str = "") -> Path:
        """Sign a request as it comes, and return the file of the chain."""
        given, made, chain = (self.folder / name for name in ("ca.ext", "ca.pem", "chain.pem"))
        given.write_text(extensions)
        change = ("-subj", subject) if subject else ()
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-sha384", "-days", days, "-extfile", given, "-out", made, *change,
        )  # fmt: skip
        chain.write_text(made.read_text() + self.certificate.read_text())
        return chain


def key_id(home: Path) -> str:
    """The key identifier that certificates of the present CA name."""
    text = openssl("x509", "-in", home / "cm" / "ca.pem", "-noout", "-ext", "subjectKeyIdentifier")
    return text.split()[-1]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Root(folder)


@pytest.fixture
def home(deployment_template: Path, tmp_path: Path) -> Path:
    return copy_deployment(deployment_template, tmp_path / "deployment")


def request_of(home: Path) -> Path:
    path = home / "to-sign.csr"
    told = keyark("ca", "request", "--home", home, "--out", path).stdout
    assert key_id(home) in told
    asked = openssl("req", "-in", path, "-noout", "-text")
    assert key_id(home) in asked
    assert "CA:TRUE" in asked
    assert "Certificate Sign, CRL Sign" in asked
    return path


def files(home: Path) -> list[bytes]:
    return [(home / path / "ca.pem").read_bytes() for path in (".", "cm", "drm")]


def test_certificates_of_before_and_after_lead_to_the_other_root(tmp_path: Path, root: Root) -> None:
    home = tmp_path / "deployment"
    init_home(home)
    with up(home):
        keyark("enroll", "--home", home, "--name", "A", "--email", "a@example.org", "--out", tmp_path / "a")
    chain = root.sign(request_of(home), extensions=CA_EXTENSIONS.format(key_id=key_id(home)))
    printed = keyark("ca", "install", chain, "--home", home).stdout
    assert "CN=Root,O=Elsewhere" in printed
    assert keyark("ca", "show", "--home", home).stdout.splitlines() == printed.splitlines()[:2]
    with up(home):
        keyark("enroll", "--home", home, "--name", "B", "--email", "b@example.org", "--out", tmp_path / "b")
        keyark("certificates", "publish-crls", "--home", home)
        assert "healthy" in keyark("doctor", "--home", home).stdout
    for person in ("a", "b"):
        for role in ("signing", "encryption"):
            openssl(
                "verify", "-x509_strict", "-CAfile", root.certificate, "-untrusted", home / "ca.pem",
                tmp_path / person / f"{role}.pem",
            )  # fmt: skip
    assert load_certificates(tmp_path / "b" / "chain.pem")[-1] == load_certificates(root.certificate)[0]
    crl = home / "cm" / "crls" / "full.crl"
    assert "verify OK" in openssl("crl", "-in", crl, "-inform", "DER", "-noout", "-CAfile", home / "ca.pem")


@pytest.mark.parametrize(
    ("extensions", "options", "words"),
    [
        ("keyUsage = critical,keyCertSign,cRLSign\n", {}, "not that of a CA"),
        (CA_EXTENSIONS.replace(",cRLSign", ""), {}, "may not sign certificates and CRLs"),
        (
            CA_EXTENSIONS.replace("keyid", "keyid").replace("{key_id}", "01:02:03"),
            {},
            "has the subject key identifier",
        ),
        (CA_EXTENSIONS, {"subject": "/CN=Another Name"}, "have it issued for the name in the request"),
        (CA_EXTENSIONS + "1.2.3.4 = critical,ASN1:NULL\n", {}, "not understood here"),
    ],
)
def test_what_the_ca_cannot_work_with_is_refused_and_changes_nothing(
    home: Path, root: Root, extensions: str, options: dict[str, object], words: str
) -> None:
    before = files(home)
    chain = root.sign(request_of(home), extensions=extensions.replace("{key_id}", key_id(home)), **options)  # type: ignore[arg-type]
    told = keyark("ca", "install", chain, "--home", home, code=1).stderr
    assert words in told
    assert files(home) == before


def test_a_root_that_permits_no_ca_below_it_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "narrow").mkdir()
    root = Root(tmp_path / "narrow", constraint="critical,CA:TRUE,pathlen:0")
    chain = root.sign(request_of(home), extensions=CA_EXTENSIONS.format(key_id=key_id(home)))
    assert "permits 0 CAs below it" in keyark("ca", "install", chain, "--home", home, code=1).stderr


def test_another_ca_a_torn_chain_and_strangers_in_it_are_refused(
    home: Path, root: Root, tmp_path: Path, deployment_template: Path
) -> None:
    before = files(home)
    chain = root.sign(request_of(home), extensions=CA_EXTENSIONS.format(key_id=key_id(home)))
    own, top = load_certificates(chain)
    stranger = load_certificates(home / "trust-anchor.pem")[0]
    present_root = load_certificates(home / "ca.pem")[1]
    for name, certificates, words in (
        ("no root", [own], "0 roots"),
        ("only the root", [top], "0 certificates for the CA's key"),
        ("two roots", [own, top, stranger], "2 roots"),
        ("another root", [own, present_root], "issued by"),
        ("twice", [own, own, top], "2 certificates for the CA's key"),
    ):
        path = tmp_path / "tried.pem"
        save_certificates(path, certificates)
        assert words in keyark("ca", "install", path, "--home", home, code=1).stderr, name
    path.write_bytes(chain.read_bytes()[:-200])
    keyark("ca", "install", path, "--home", home, code=1)
    path.write_text("nothing")
    keyark("ca", "install", path, "--home", home, code=1)
    keyark("ca", "install", tmp_path / "gone.pem", "--home", home, code=1)
    assert files(home) == before


def test_a_fresh_ca_takes_another_key_identifier_and_the_same_chain_twice(home: Path, root: Root) -> None:
    chain = root.sign(request_of(home), extensions=CA_EXTENSIONS.format(key_id="hash"))
    keyark("ca", "install", chain, "--home", home, "--fresh")
    installed = files(home)
    keyark("ca", "install", chain, "--home", home)
    assert files(home) == installed
    assert len(set(installed)) == 1
