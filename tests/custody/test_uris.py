"""Guards that a key's URI names one file, and that nothing else of a URI is taken or shown."""

import contextlib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.custody.uris import KeyUriError, Pkcs11Uri, load_private_key_by_uri, parse_pkcs11_uri
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
    with pytest.raises(KeyUriError, match="cannot use keys in pkcs11 tokens"):
        load_private_key_by_uri("pkcs11:token=drm;object=storage", folder)
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


def _label(limit):
    character = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
    return st.text(character, min_size=1, max_size=limit).filter(lambda text: len(text.encode()) <= limit)


@given(
    token=_label(32),
    serial=st.none() | _label(16),
    label=_label(255),
    key_id=st.none() | st.binary(min_size=1, max_size=255),
    module=st.none() | _label(40),
    order=st.randoms(use_true_random=False),
)
def test_a_pkcs11_uri_is_read_as_it_was_written(token, serial, label, key_id, module, order):
    path = {"token": token, "serial": serial, "object": label, "id": key_id, "type": "private"}
    parts = [f"{name}={quote(value, safe='')}" for name, value in path.items() if value is not None]
    order.shuffle(parts)
    query = "" if module is None else f"?module-path=/{quote(module, safe='/')}&pin-source=file:/etc/pin"
    assert parse_pkcs11_uri(f"pkcs11:{';'.join(parts)}{query}") == Pkcs11Uri(
        token=token,
        serial=serial,
        label=label,
        id=key_id,
        module_path=None if module is None else Path(f"/{module}"),
        pin_source=None if module is None else "file:/etc/pin",
    )


@given(st.text(alphabet="token=object;id?&pin-value%0a4/|:\0é"))
def test_any_other_text_is_a_key_or_a_typed_refusal(text):
    with contextlib.suppress(KeyUriError):
        assert parse_pkcs11_uri(f"pkcs11:{text}").token != ""


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("token=a;object=b?pin-value=secret7", "holds a PIN"),
        ("token=a;object=b;pin-value=secret7", "holds a PIN"),
        ("token=a;object=b?module-path=/m&pin-value=secret7", "holds a PIN"),
        ("token=a;object=b;slot-id=7", "does not use"),
        ("token=a;object=b;x-secret7=1", "does not use"),
        ("token=a;object=b?module-name=secret7", "does not use"),
        ("token=a;object=b;", "does not use"),
        ("token=a;object=b?", "does not use"),
        ("token=a;object=b;module-path=/m", "does not use"),
        ("", "does not use"),
        ("token=a;token=secret7;object=b", "gives token twice"),
        ("token=;object=b", "token is empty"),
        ("token=secret7 a;object=b", "token is empty or not encoded"),
        ("token=a;object=secret7%2", "object is empty or not encoded"),
        ("token=a;object=secret7?more?pin-source=x", "does not use"),
        ("token=" + "secret7" * 5 + ";object=b", "token is longer than the 32 bytes"),
        ("token=a;object=secret7%0g", "object is empty or not encoded"),
        ("token=a;object=%%41secret7", "object is empty or not encoded"),
        ("token=a;object=b?pin-source=secret7;c", "pin-source is empty or not encoded"),
        ("token=a;object=secret7%ff", "not UTF-8"),
        ("token=a;object=secret7%00", "NUL"),
        ("token=a;object=b;type=cert", "no private key"),
        ("object=secret7", "names no token"),
        ("model=a;object=secret7", "names no token"),
        ("token=secret7", "names no key"),
        ("token=a;object=b?module-path=secret7", "relative"),
        ("token=a;object=b?pin-source=|secret7", "a command"),
        ("token=a;object=b?pin-source=%7Csecret7", "a command"),
    ],
)
def test_a_pkcs11_uri_that_names_no_one_key_is_refused_without_showing_it(rest, sentence):
    with pytest.raises(KeyUriError, match=sentence) as caught:
        parse_pkcs11_uri(f"pkcs11:{rest}")
    assert "secret7" not in str(caught.value)


def test_scheme_and_names_are_compared_letter_by_letter():
    with pytest.raises(KeyUriError, match=r"no pkcs11: URI"):
        parse_pkcs11_uri("file:key.pem")
    with pytest.raises(KeyUriError, match="does not use"):
        parse_pkcs11_uri("pkcs11:Token=a;object=b")
