"""Guards that a key's URI names one file, and that nothing else of a URI is taken or shown."""

import pytest

from keyark.custody.uris import KeyUriError, load_private_key_by_uri
from keyark.files import LaxPermissionsError, UnreadableFileError
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import PasswordRequiredError, save_private_key
from tests.support.keys.crypto import pkcs8
from tests.support.keys.pki import private_key

KEY = private_key(KeyType.EC_P256)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "keys"
    save_private_key(path / "key.pem", KEY)
    save_private_key(path / "encrypted.pem", KEY, password=b"secret")
    return path


def test_relative_and_absolute_paths(folder, tmp_path):
    for uri in ("file:key.pem", f"file:{folder}/key.pem", f"file://{folder}/key.pem"):
        assert pkcs8(load_private_key_by_uri(uri, folder)) == pkcs8(KEY)
    assert pkcs8(load_private_key_by_uri("file:keys/key.pem", tmp_path)) == pkcs8(KEY)


def test_a_password_is_asked_for_where_one_is_needed(folder):
    def never():
        raise AssertionError

    assert load_private_key_by_uri("file:key.pem", folder, ask_password=never)
    loaded = load_private_key_by_uri("file:encrypted.pem", folder, ask_password=lambda: b"secret")
    assert pkcs8(loaded) == pkcs8(KEY)
    with pytest.raises(PasswordRequiredError):
        load_private_key_by_uri("file:encrypted.pem", folder)


def test_other_schemes_are_refused_and_a_pin_in_them_is_not_shown(folder):
    with pytest.raises(KeyUriError, match="pkcs11") as caught:
        load_private_key_by_uri("pkcs11:token=drm;object=storage?pin-value=1234", folder)
    assert "1234" not in str(caught.value)
    for uri in ("https://example.org/key.pem", "FILE:key.pem", ":key.pem"):
        with pytest.raises(KeyUriError):
            load_private_key_by_uri(uri, folder)


@pytest.mark.parametrize(
    "uri", ["", "key.pem", "/key.pem", "file:", "file://", "file://host/key.pem", "file:a\0b"]
)
def test_what_names_no_file_is_refused(folder, uri):
    with pytest.raises(KeyUriError):
        load_private_key_by_uri(uri, folder)


def test_the_file_must_exist_and_be_private(folder):
    with pytest.raises(UnreadableFileError):
        load_private_key_by_uri("file:none.pem", folder)
    (folder / "key.pem").chmod(0o640)
    with pytest.raises(LaxPermissionsError):
        load_private_key_by_uri("file:key.pem", folder)
