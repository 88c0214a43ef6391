"""Key pairs made beforehand: enough, never twice for one deployment, readable by their owner only, and real ones."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from keyark.custody.matching import prove_match
from keyark.errors import ConfigurationError
from keyark.keys.key_types import KeyType, key_type_of
from keyark.keys.spki import encode_spki
from keyark.load.planning.keys import USED, KeyCache


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_2048, KeyType.ML_KEM_768, KeyType.X25519])
def test_every_key_is_one_that_the_archive_takes(tmp_path, key_type):
    ders = list(KeyCache(tmp_path).take(key_type, 7, deployment="a").read())
    keys = [load_der_private_key(der, None) for der in ders]  # with all of OpenSSL's checks
    assert {key_type_of(key.public_key()) for key in keys} == {key_type}
    spkis = {encode_spki(key.public_key()) for key in keys}
    assert len(spkis) == 7
    for der, key in zip(ders, keys, strict=True):
        prove_match(der, encode_spki(key.public_key()))


def test_a_deployment_gets_no_key_twice_and_another_one_gets_them_again(tmp_path):
    cache = KeyCache(tmp_path)
    first = list(cache.take(KeyType.EC_P256, 5, deployment="a").read())
    second = list(KeyCache(tmp_path).take(KeyType.EC_P256, 5, deployment="a").read())
    other = list(cache.take(KeyType.EC_P256, 5, deployment="b").read())
    assert not set(first) & set(second)
    assert other == first


def test_keys_are_made_once_and_kept(tmp_path):
    said = []
    cache = KeyCache(tmp_path, said.append)
    cache.take(KeyType.EC_P256, 5, deployment="a")
    cache.take(KeyType.EC_P256, 4, deployment="b")
    assert said == ["making 5 ec-p256 keys"]
    cache.take(KeyType.EC_P256, 3, deployment="b")
    assert said[1:] == ["making 2 ec-p256 keys"]


def test_parts_are_the_whole_without_overlap(tmp_path):
    whole = KeyCache(tmp_path).take(KeyType.EC_P256, 10, deployment="a")
    assert [key for i in range(5) for key in whole.part(i, 5).read()] == list(whole.read())


def test_files_are_the_owners_alone(tmp_path):
    folder = tmp_path / "keys"
    KeyCache(folder).take(KeyType.EC_P256, 1, deployment="a")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_key_that_was_cut_off_is_made_anew(tmp_path):
    cache = KeyCache(tmp_path)
    whole = list(cache.take(KeyType.EC_P256, 3, deployment="a").read())
    path = tmp_path / "ec-p256.keys"
    path.write_bytes(path.read_bytes()[:-10])
    after = list(cache.take(KeyType.EC_P256, 3, deployment="b").read())
    assert after[:2] == whole[:2]
    assert after[2] != whole[2]
    load_der_private_key(after[2], None).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def test_a_ledger_that_is_none_is_refused(tmp_path):
    (tmp_path / USED).write_text("{")
    with pytest.raises(ConfigurationError, match="ledger"):
        KeyCache(tmp_path).take(KeyType.EC_P256, 1, deployment="a")


def test_the_ledger_holds_numbers_and_no_keys(tmp_path):
    KeyCache(tmp_path).take(KeyType.EC_P256, 2, deployment="a")
    assert json.loads((tmp_path / USED).read_text()) == {"a": {"ec-p256": 2}}
