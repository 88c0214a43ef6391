"""Key and certificate of an identity change together, whatever interrupts the change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from keyark.errors import ConfigurationError, KeyarkError
from keyark.files import LaxPermissionsError, UnwritableFileError
from keyark.identity.certificates import issue_identity, renew_identity, request_identity
from keyark.identity.files import IdentityFiles
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, UnsupportedKeyError, generate_signing
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import Validity, load_certificates, save_certificates

CA = create_internal_ca(
    generate_signing(KeyType.EC_P256),
    subject=ca_name("internal"),
    validity=Validity.starting(int(time.time()), lifetime_seconds=86_400),
)


def new_pair():  # type: ignore[no-untyped-def]
    key, identity = generate_signing(KeyType.EC_P256), SpiffeId("example.org", "rm")
    validity = Validity.starting(int(time.time()), lifetime_seconds=3600, within=CA.validity)
    return key, [issue_identity(CA, request_identity(key, identity), identity=identity, validity=validity)]


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    made = IdentityFiles(key=tmp_path / "rm" / "key.pem", certificate=tmp_path / "rm" / "cert.pem")
    key, chain = new_pair()
    save_private_key(made.key, key)
    save_certificates(made.certificate, chain)
    return made


def serial(files: IdentityFiles) -> int:
    key, chain = files.load()
    assert key.public_key() == chain[0].public_key()
    return chain[0].serial_number


def test_a_replaced_pair_is_the_new_one_and_only_its_owner_reads_the_key(files: IdentityFiles) -> None:
    key, chain = new_pair()
    files.replace(key, chain)
    assert serial(files) == chain[0].serial_number
    assert load_private_key(files.key).public_key() == key.public_key()
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(files.key.parent)) == ["cert.pem", "key.pem"]


def test_a_key_whose_certificate_never_came_changes_nothing(files: IdentityFiles) -> None:
    before = serial(files)
    save_private_key(files.next_key, new_pair()[0])
    assert serial(files) == before
    files.finish()
    assert serial(files) == before
    assert load_private_key(files.key).public_key() == load_certificates(files.certificate)[0].public_key()
    key, chain = new_pair()
    files.replace(key, chain)
    assert serial(files) == chain[0].serial_number


def test_a_certificate_that_came_before_the_crash_counts_and_the_next_renewal_keeps_its_key(
    files: IdentityFiles,
) -> None:
    key, chain = new_pair()
    save_private_key(files.next_key, key)
    save_certificates(files.certificate, chain)
    assert serial(files) == chain[0].serial_number
    files.finish()
    assert not files.next_key.exists()
    assert serial(files) == chain[0].serial_number


def test_a_reader_meets_one_of_both_pairs_at_every_step(
    files: IdentityFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, (key, chain) = serial(files), new_pair()
    seen, rename = [], Path.replace

    def rename_and_read(self: Path, target: Path) -> Path:
        seen.append(serial(files))
        done = rename(self, target)
        seen.append(serial(files))
        return done

    monkeypatch.setattr(Path, "replace", rename_and_read)
    files.replace(key, chain)
    new = chain[0].serial_number
    assert seen == [before, before, before, new, new, new]


def test_what_does_not_belong_together_is_refused(files: IdentityFiles) -> None:
    before = serial(files)
    with pytest.raises(ConfigurationError, match="not belong to the new key"):
        files.replace(new_pair()[0], new_pair()[1])
    assert serial(files) == before
    save_certificates(files.certificate, new_pair()[1])
    with pytest.raises(ConfigurationError, match="not the certificate of"):
        files.load()
    save_private_key(files.next_key, new_pair()[0])
    with pytest.raises(ConfigurationError, match="not the certificate of"):
        files.load()


def test_a_next_key_that_others_may_read_is_not_taken(files: IdentityFiles) -> None:
    key, chain = new_pair()
    save_private_key(files.next_key, key)
    save_certificates(files.certificate, chain)
    files.next_key.chmod(0o644)
    for action in (files.load, files.finish):
        with pytest.raises(LaxPermissionsError):
            action()


def test_a_certificate_that_cannot_be_written_leaves_the_older_pair(files: IdentityFiles) -> None:
    key, chain = new_pair()
    older = load_private_key(files.key)
    files.certificate.unlink()
    files.certificate.mkdir()
    with pytest.raises(UnwritableFileError):
        files.replace(key, chain)
    assert load_private_key(files.key).public_key() == older.public_key()
    with pytest.raises(KeyarkError):
        files.load()


def test_an_identity_is_not_renewed_for_a_key_of_another_type(files: IdentityFiles) -> None:
    present = load_certificates(files.certificate)[0]
    with pytest.raises(UnsupportedKeyError):
        renew_identity(
            CA,
            present,
            validity=Validity.of(present),
            new_key=generate_signing(KeyType.EC_P384).public_key(),
        )
