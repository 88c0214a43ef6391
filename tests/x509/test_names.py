"""Guards what may stand in a subject: nothing invisible, nothing that reads as another name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import InvalidInputError
from keyark.x509.names import check_email, check_kept_name, check_name, normalized_name
from tests.text.test_characters import PEOPLE, UNSEEN


def normal(names):
    return [normalized_name(name) for name in names]


@pytest.mark.parametrize(
    "name",
    ["A", "Alice Example", "Zoë Ünal", "山田太郎", "O'Neil, Jr. <x>", "x" * 64, "😀" * 64, *normal(PEOPLE)],
)
def test_names_of_people_are_taken(name):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        " Alice",
        "Alice ",
        "Alice\n",
        "Al\x00ice",
        "Al\x7fice",
        "Al\x85ice",
        "Al\u00a0ice",
        "Al\u200bice",
        "Al\u200fice",
        "Al\u202eice",
        "Al\u2066ice",
        "Al\u2028ice",
        "Al\u2029ice",
        "\ufeffAlice",
        "Al\ud800ice",
        "Al\ue000ice",
        "Zoe\u0308",
        *(f"Al{character}ice" for character in UNSEEN),
        "Al\u200cice",
        "\u0916\u200d",
        "a" + "\u0323\u0301\u0300\u0302\u0303\u0304",
    ],
)
def test_invisible_or_ambiguous_names_are_refused(name):
    with pytest.raises(InvalidInputError) as caught:
        check_name(name, field="organization")
    assert caught.value.field == "organization"


@given(st.text(max_size=70))
def test_what_is_taken_is_normal_visible_and_short(name):
    try:
        check_name(name)
    except InvalidInputError:
        return
    assert 1 <= len(name) <= 64
    assert name == name.strip()
    assert unicodedata.normalize("NFC", name) == name
    name = name.replace("\u200c", "").replace("\u200d", "")
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=64))
def test_visible_ascii_is_always_taken(name):
    check_name(name)


@pytest.mark.parametrize(
    "email",
    [
        "a@b.de",
        "alice.example+tag@mail.example.org",
        "O'Neil@Example.ORG",
        "x" * 64 + "@example.org",
        "a@xn--mnchen-3ya.de",
        "a@1.2.3.example",
    ],
)
def test_addresses_are_taken(email):
    check_email(email)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "alice@localhost",
        "a@b@example.org",
        "a b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        '"a b"@example.org',
        "a@[127.0.0.1]",
        "a@127.0.0.1",
        "a@-example.org",
        "a@example-.org",
        "a@example..org",
        "a@example.org.",
        "a@exa_mple.org",
        "a@example.org\n",
        "a\n@example.org",
        "a\x00@example.org",
        "älice@example.org",
        "alice@exämple.org",
        "alice@example.org, bob@example.org",
        "<alice@example.org>",
        "x" * 65 + "@example.org",
        "a@" + "b" * 64 + ".org",
        "a@" + "b." * 126 + "org",
        "x" * 64 + "@" + ("y" * 60 + ".") * 3 + "example",
    ],
)
def test_other_addresses_are_refused(email):
    with pytest.raises(InvalidInputError) as caught:
        check_email(email)
    assert caught.value.field == "email"


@given(st.text(max_size=300))
def test_what_is_taken_is_short_ascii_with_one_at_sign(email):
    try:
        check_email(email)
    except InvalidInputError:
        return
    assert email.isascii()
    assert email.count("@") == 1
    assert len(email) <= 254


@given(st.emails(domains=st.just("example.org")))
def test_whatever_is_taken_of_odd_addresses_has_no_blank(email):
    try:
        check_email(email)
    except InvalidInputError:
        return
    assert not any(c.isspace() or c in '"(),:;<>[]\\' for c in email)


def test_what_is_refused_is_told_by_its_name():
    with pytest.raises(
        InvalidInputError, match=r"Character \d+ of the name is U\+3164 HANGUL FILLER, which is invisible"
    ):
        check_name("Alice\u3164")


@pytest.mark.parametrize("name", ["Alice\u3164", "❤\ufe0f", "a\u034fb"])
def test_what_earlier_releases_took_is_read_again_where_it_is_kept(name):
    check_kept_name(name)
    with pytest.raises(InvalidInputError):
        check_name(name)
