"""Guards PKCS#12 files: the right keys and certificates, today's encryption in every part, and names that differ."""

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from keyark.errors import InvalidInputError
from keyark.keys import pbes
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.keys.pbes import derive
from keyark.keys.spki import encode_spki
from keyark.x509.certificates import load_certificate
from keyark.x509.pkcs12 import KeyEntry, Pkcs12Form, Pkcs12Writer, entry_name, open_pkcs12
from tests.support.keys.pki import issue_pair, issuing_ca, private_key, root_ca, spki

WRITTEN = (KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P521)
NOT_WRITTEN = (KeyType.X25519, KeyType.ML_KEM_768, KeyType.ML_DSA_44)
CHAIN = [issuing_ca().certificate, root_ca().certificate]
PASSWORD = "correct horse battery staple"
PASSWORD_BYTES = PASSWORD.encode()


def entry(key_type, *, use="encryption", number=1, key=None):
    pair = issue_pair(
        issuing_ca(), signing_spki=spki(KeyType.EC_P256, 2), encryption_spki=spki(key_type, number)
    )
    certificate = load_certificate(pair.encryption)
    return KeyEntry(
        name=entry_name("alice@example.org", use, certificate),
        private_key=key or private_key(key_type, number),
        certificate=certificate,
    )


def build(key_type, *, password=PASSWORD_BYTES, key=None):
    return Pkcs12Writer(password).build([entry(key_type, key=key)], chain=CHAIN)


def history(form=Pkcs12Form.MODERN):
    """Three keys, as of a person who renewed twice."""
    entries = [entry(KeyType.RSA_2048, number=number) for number in (1, 2, 3)]
    return entries, Pkcs12Writer(PASSWORD.encode(), form).build(entries, chain=[*CHAIN, *CHAIN])


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


@pytest.fixture(params=Pkcs12Form)
def file(request, tmp_path) -> tuple[Path, Pkcs12Form, list[KeyEntry]]:
    entries, data = history(request.param)
    path = tmp_path / "keys.p12"
    path.write_bytes(data)
    return path, request.param, entries


@pytest.mark.parametrize("key_type", WRITTEN)
def test_key_certificate_and_chain_come_back(key_type):
    key, certificate, chain = pkcs12.load_key_and_certificates(build(key_type), PASSWORD.encode())
    assert encode_spki(key.public_key()) == encode_spki(certificate.public_key()) == spki(key_type, 1)
    assert {c.subject for c in chain} == {issuing_ca().certificate.subject, root_ca().certificate.subject}


def test_ed25519_signing_keys_are_written():
    certificate = load_certificate(issue_pair(issuing_ca(), signing_spki=spki(KeyType.ED25519)).signing)
    signing = KeyEntry(name="x", private_key=private_key(KeyType.ED25519), certificate=certificate)
    data = Pkcs12Writer(b"pw").build([signing], chain=[])
    assert pkcs12.load_key_and_certificates(data, b"pw")[1] == certificate
    assert encode_spki(open_pkcs12(data, password=b"pw").public_key()) == spki(KeyType.ED25519)


@pytest.mark.usefixtures("usual_rounds")
def test_openssl_sees_every_part_as_strong_as_the_others(tmp_path):
    path = tmp_path / "keys.p12"
    path.write_bytes(history()[1])
    told = run("openssl", "pkcs12", "-in", path, "-info", "-noout", "-passin", f"pass:{PASSWORD}").stderr
    assert set(re.findall(r"Iteration (\d+)", told)) == {"600000"}
    assert told.count("AES-256-CBC") == 4  # three keys, and the certificates
    assert "MAC: sha256" in told
    assert "RC2" not in told


def test_openssl_reads_every_key_with_its_name(file):
    path, form, entries = file
    legacy = ["-legacy"] if form is Pkcs12Form.COMPATIBLE else []
    told = run("openssl", "pkcs12", "-in", path, "-nodes", *legacy, "-passin", f"pass:{PASSWORD}").stdout
    assert told.count("BEGIN PRIVATE KEY") == len(entries)
    assert told.count("BEGIN CERTIFICATE") == len(entries) + len(CHAIN)
    assert len(set(re.findall(r"friendlyName: (.+)", told))) == len(entries)


def test_gnutls_reads_it(file):
    path, _, entries = file
    told = run("certtool", "--p12-info", "--inder", "--infile", path, "--password", PASSWORD).stdout
    assert told.count("BEGIN CERTIFICATE") == len(entries) + len(CHAIN)
    assert told.count("BEGIN ENCRYPTED PRIVATE KEY") == len(entries)


def test_nss_imports_every_key(file, tmp_path):
    path, _, entries = file
    store = f"sql:{tmp_path}"
    run("certutil", "-N", "-d", store, "--empty-password")
    run("pk12util", "-i", path, "-d", store, "-W", PASSWORD)
    listed = run("certutil", "-K", "-d", store).stdout
    assert listed.count(" rsa ") == len(entries)
    for item in entries:
        assert item.name in listed


def test_java_lists_every_key(file):
    path, _, entries = file
    listed = run("keytool", "-list", "-keystore", path, "-storepass", PASSWORD).stdout
    assert listed.count("PrivateKeyEntry") == len(entries)


def test_gpgsm_reads_the_compatible_form(tmp_path):
    path, home = tmp_path / "key.p12", tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    path.write_bytes(
        Pkcs12Writer(PASSWORD.encode(), Pkcs12Form.COMPATIBLE).build([entry(KeyType.RSA_2048)], chain=CHAIN)
    )
    command = ["gpgsm", "--homedir", home, "--batch", "--disable-dirmngr", "--pinentry-mode", "loopback"]
    told = run(*command, "--passphrase-fd", "0", "--import", path, input=PASSWORD + "\n").stderr
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    assert "secret keys imported: 1" in told


def test_gpgsm_reads_every_compatible_file(monkeypatch):
    """It derives another key where a block of the derivation begins with a zero byte; no salt leads there."""
    drawn = iter([bytes([number]) * 16 for number in range(256)] * 3)
    seen = []

    def draw(size: int) -> bytes:
        seen.append(next(drawn)[:size])
        return seen[-1]

    monkeypatch.setattr(pbes.os, "urandom", draw)
    protection = pbes.CompatibleProtection(PASSWORD.encode())
    taken = [protection._salt() for _ in range(200)]
    refused = [salt for salt in seen[1:] if salt not in taken]  # the first is that of the MAC
    assert refused
    for salts, is_refused in ((taken, False), (refused, True)):
        for salt in salts:
            blocks = pbes._blocks_of_second_hash(
                PASSWORD.encode(), salt, purpose=1, rounds=2_048, hash_name="sha1"
            )
            assert any(block[0] == 0 for block in blocks) == is_refused


def test_another_password_does_not_open_it():
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(build(KeyType.EC_P256), b"battery staple")


@pytest.mark.parametrize("key_type", NOT_WRITTEN)
def test_types_that_pkcs12_does_not_take_are_refused_with_a_way_out(key_type):
    with pytest.raises(UnsupportedKeyError, match=f"{key_type.value}.*encrypted PEM"):
        build(KeyType.EC_P256, key=private_key(key_type))


def test_a_certificate_of_another_key_is_refused():
    with pytest.raises(InvalidInputError, match="not the one"):
        build(KeyType.EC_P256, key=private_key(KeyType.EC_P256, 2))


@pytest.mark.parametrize(
    "password",
    [b"", b"a\0b", b"\xff\xfe", b"tab\there", b"x" * 1024],
    ids=["empty", "nul", "bytes", "tab", "long"],
)
def test_passwords_that_importers_cannot_take_are_refused(password):
    with pytest.raises(InvalidInputError, match="PKCS#12"):
        Pkcs12Writer(password)


@pytest.mark.parametrize("password", ["grün und blau", "пароль", "秘密の鍵", "😀 smile"])
def test_passwords_of_every_script_open_what_they_closed(password, tmp_path):
    path = tmp_path / "key.p12"
    path.write_bytes(build(KeyType.EC_P256, password=password.encode()))
    assert pkcs12.load_key_and_certificates(path.read_bytes(), password.encode())[0]
    (tmp_path / "password").write_text(password)
    run("openssl", "pkcs12", "-in", path, "-noout", "-passin", f"file:{tmp_path / 'password'}")


def test_names_differ_by_use_date_and_certificate():
    one, other = entry(KeyType.EC_P256), entry(KeyType.EC_P256, number=3)
    assert re.fullmatch(r"alice@example\.org encryption \d{4}-\d\d-\d\d [0-9a-f]{8}", one.name)
    assert one.name != other.name


@pytest.mark.parametrize(
    ("salt", "purpose", "rounds", "password", "size", "expected"),
    [  # the test vectors that OpenSSL, Bouncy Castle and others share
        ("0A58CF64530D823F", 1, 1, "smeg", 24, "8AAAE6297B6CB04642AB5B077851284EB7128F1A2A7FBCA3"),
        ("0A58CF64530D823F", 2, 1, "smeg", 8, "79993DFE048D3B76"),
        ("05DEC959ACFF72F7", 1, 1000, "queeg", 24, "ED2034E36328830FF09DF1E1A07DD357185DAC0D4F9EB3D4"),
        ("05DEC959ACFF72F7", 2, 1000, "queeg", 8, "11DEDAD7758D4860"),
        ("263216FCC2FAB31C", 3, 1000, "queeg", 20, "5EC4C7A80DF652294C3925B6489A7AB857C83476"),
    ],
)
def test_the_derivation_is_the_one_of_rfc_7292(salt, purpose, rounds, password, size, expected):
    derived = derive(
        password.encode(), bytes.fromhex(salt), purpose=purpose, rounds=rounds, hash_name="sha1", size=size
    )
    assert derived.hex().upper() == expected
