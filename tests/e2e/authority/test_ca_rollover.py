"""Another CA key: what was signed before keeps its chain, lists and OCSP while the new one signs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cm_service.config import CmConfig
from cm_service.subsystem import run as run_cm
from keyark.config import load_config
from keyark.deployment.ports import free_ports
from keyark.errors import ConfigurationError
from keyark.x509.certificates import load_certificates
from tests.support.keys.openssl import openssl
from tests.support.running.deployment import copy_deployment, edit
from tests.support.running.processes import init_home, keyark, up


def enroll(home: Path, folder: Path) -> None:
    name = folder.name
    keyark("enroll", "--home", home, "--name", name, "--email", f"{name}@example.org", "--out", folder)


def rollover(home: Path, name: str = "Issuing CA 2", **options: int) -> str:
    done = keyark("ca", "rollover", "--home", home, "--name", name, **options)
    return done.stdout + done.stderr


def number(folder: Path, role: str) -> int:
    return load_certificates(folder / f"{role}.pem")[0].serial_number


def revoke(home: Path, folder: Path) -> None:
    text = f"{number(folder, 'signing'):x}"
    serial = text.zfill(len(text) + len(text) % 2)
    keyark("certificates", "revoke", serial, "--pair", "--reason", "superseded", "--home", home)


def listed(home: Path, name: str) -> set[int]:
    crl = x509.load_der_x509_crl((home / "cm" / "crls" / name).read_bytes())
    return {entry.serial_number for entry in crl}


def asked(home: Path, folder: Path, port: str) -> str:
    """What openssl ocsp is told of a person's signing certificate, the answer verified up to the root."""
    chain = load_certificates(folder / "chain.pem")
    issuer = folder / "issuer.pem"
    issuer.write_bytes(chain[0].public_bytes(Encoding.PEM))
    return openssl(
        "ocsp", "-issuer", issuer, "-cert", folder / "signing.pem", "-url", f"http://127.0.0.1:{port}/ocsp",
        "-CAfile", home / "ca.pem", "-no_nonce",
    )  # fmt: skip


def test_each_key_answers_for_what_it_signed(tmp_path: Path) -> None:
    home = tmp_path / "deployment"
    init_home(home)
    anna, bert, carl = (tmp_path / name for name in ("anna", "bert", "carl"))
    with up(home):
        enroll(home, anna)
        enroll(home, carl)
    before = load_certificates(home / "ca.pem")
    assert "restart the services" in rollover(home)
    assert load_certificates(home / "ca.pem")[1:] == before
    port = str(int(free_ports()) + 7)
    with up(home, "--http", f"127.0.0.1:{port}"):
        enroll(home, bert)
        enroll(home, anna)  # a finished folder is what it was
        assert number(anna, "signing") != number(bert, "signing")
        revoke(home, anna)
        revoke(home, bert)
        keyark("certificates", "publish-crls", "--home", home)
        pairs = {
            person: {number(person, role) for role in ("signing", "encryption")} for person in (anna, bert)
        }
        assert (listed(home, "full.crl"), listed(home, "full-ca1.crl")) == (pairs[anna], pairs[bert])
        assert re.search(r"signing.pem: revoked", asked(home, anna, port))
        assert re.search(r"signing.pem: revoked", asked(home, bert, port))
        assert re.search(r"signing.pem: good", asked(home, carl, port))
        mixed = carl / "mixed.pem"
        mixed.write_bytes(load_certificates(bert / "chain.pem")[0].public_bytes(Encoding.PEM))
        wrong = openssl(
            "ocsp", "-issuer", mixed, "-serial", f"0x{number(carl, 'signing'):x}", "-url", f"http://127.0.0.1:{port}/ocsp",
            "-CAfile", home / "ca.pem", "-no_nonce",
        )  # fmt: skip
        assert ": unknown" in wrong, "it is not of this key"
        assert "healthy" in keyark("doctor", "--home", home).stdout
        keys = keyark("keys", "list", "--home", home, "--state", "certified").stdout
        assert keys.count("@example.org") == 3
    for person, generation in ((anna, 0), (carl, 0), (bert, 1)):
        own = load_certificates(person / "chain.pem")
        assert (own[0] == before[0]) is (generation == 0)
        assert own[-1] == before[-1]
        openssl("verify", "-x509_strict", "-CAfile", home / "ca.pem", person / "encryption.pem")
    for name in ("full.crl", "full-ca1.crl"):
        path = home / "cm" / "crls" / name
        assert "verify OK" in openssl(
            "crl", "-in", path, "-inform", "DER", "-noout", "-CAfile", home / "ca.pem"
        )
    rollover(home, "Issuing CA 3")
    with up(home):
        enroll(home, tmp_path / "dora")
        keyark("certificates", "publish-crls", "--home", home)
    assert sorted(path.name for path in (home / "cm" / "crls").glob("*.crl")) == [
        "full-ca1.crl", "full-ca2.crl", "full.crl",
    ]  # fmt: skip
    assert listed(home, "full-ca2.crl") == set()


@pytest.fixture
def home(deployment_template: Path, tmp_path: Path) -> Path:
    return copy_deployment(deployment_template, tmp_path / "deployment")


def files(home: Path) -> list[bytes]:
    return [(home / path).read_bytes() for path in ("ca.pem", "cm/ca.pem", "drm/ca.pem", "cm/cm.toml")]


def test_profiles_need_urls_for_each_key(home: Path) -> None:
    edit(
        home / "cm" / "cm.toml",
        "crl_urls = []\nca_issuer_urls = []",
        'crl_urls = ["http://pki.example.org/crl/full.crl"]',
    )
    before = files(home)
    assert "have no {ca}" in rollover(home, code=1)
    assert files(home) == before
    edit(home / "cm" / "cm.toml", "crl/full.crl", "crl/full{ca}.crl")
    edit(
        home / "cm" / "cm.toml",
        '[profiles.pq]\nbase = "pq"',
        '[profiles.pq]\nbase = "pq"\ncrl_urls = ["http://x.example.org/f{ca}.crl"]',
    )
    rollover(home)


def test_two_keys_have_two_names(home: Path) -> None:
    present = load_certificates(home / "cm" / "ca.pem")[0].subject.rfc4514_string().removeprefix("CN=")
    assert "same name as the current one" in rollover(home, present, code=1)


def test_a_root_elsewhere_signs_in_its_own_time(home: Path, tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    (home / "authority").rename(authority)
    before = files(home)
    assert "ca-1.csr signed" in rollover(home)
    assert files(home) == before
    keyark(
        "authority", "sign-ca", home / "cm" / "ca-1.csr", "--authority", authority, "--name", "Issuing CA 2",
        "--out", home / "cm" / "ca-1.pem",
    )  # fmt: skip
    assert "restart the services" in rollover(home)
    assert load_config(home / "cm" / "cm.toml", CmConfig).issuer.generation == 1


async def test_a_number_that_belongs_to_another_key_stops_the_start(home: Path) -> None:
    config = home / "cm" / "cm.toml"
    edit(config, 'listen = "', 'listen = "127.0.0.1:0"  # "')
    rollover(home)
    async with run_cm(load_config(config, CmConfig)):
        pass
    text = config.read_text()
    swapped = text
    for old, new in (("ca-1.pem", "X"), ('"ca.pem"', '"ca-1.pem"'), ('"X"', '"ca.pem"')):
        swapped = swapped.replace(old, new)
    for old, new in (("ca-key-1.pem", "Y"), ("ca-key.pem", "ca-key-1.pem"), ("file:Y", "file:ca-key.pem")):
        swapped = swapped.replace(old, new)
    config.write_text(swapped)
    with pytest.raises(ConfigurationError, match="configured key is not the CA's key"):
        async with run_cm(load_config(config, CmConfig)):
            pass
    config.write_text(text.replace("generation = 0", "generation = 5"))
    with pytest.raises(ConfigurationError, match="in the order of their generations"):
        load_config(config, CmConfig)
