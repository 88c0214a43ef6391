"""What nobody sees is found by Unicode's own lists, and no name that people really have."""

from __future__ import annotations

import json
import unicodedata
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.text.characters import describe, is_unseen, resemblances, unicode_data, unseen_positions

PEOPLE = [
    "Alice O'Neil-Example, Jr. (2)",
    "Zoë Ünal",
    "Nguyễn Thị Minh Khai",
    unicodedata.normalize("NFD", "Nguyễn Thị Minh Khai"),
    "عبد الرحمن بن عوف",
    "שָׁלוֹם כֹּהֵן",
    "علی‌رضا",  # Persian, with a zero width non-joiner between joining letters
    "श्‍री",  # Hindi, with a zero width joiner after a virama
    "क्‌ष",  # and a non-joiner there
    "山田 太郎",
    "김철수",
    "Юлія Щербак",
    "สมชาย ใจดี",
    "ქეთევან",
]
UNSEEN = (
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\u2800\u3164\ufe0f\ufeff\uffa0\ufffc",
    *"\x00\x1b\x7f\x9b\u2028\u00a0\u3000\ue000\U000e0041\U000e0100\ud800\u0378\U0001d159\U00016fe4",
)


@pytest.mark.parametrize("name", PEOPLE)
def test_names_of_people_in_every_script_are_seen_whole(name: str) -> None:
    assert list(unseen_positions(name)) == []


@pytest.mark.parametrize("name", PEOPLE)
def test_names_of_people_are_mistaken_for_no_other(name: str) -> None:
    assert resemblances(name) == []


@pytest.mark.parametrize("character", UNSEEN)
def test_what_nobody_sees_is_found_between_letters(character: str) -> None:
    assert list(unseen_positions(f"Al{character}ice")) == [2]
    assert list(unseen_positions(character)) == [0]


@pytest.mark.parametrize(
    "name", ["\u200d", "a\u200d", "क\u200d", "क\u200cष", "\u0627\u200c\u0628", "\u0628\u200ca", "👩\u200d👩"]
)
def test_joiners_out_of_context_are_found(name: str) -> None:
    assert len(list(unseen_positions(name))) == 1


def test_marks_that_reach_into_other_lines_are_found() -> None:
    assert list(unseen_positions("a" + "\u0301" * 4)) == []
    assert list(unseen_positions("a" + "\u0301" * 6)) == [5, 6]


@given(st.text())
def test_nothing_that_python_does_not_print_is_taken_for_seen(text: str) -> None:
    unseen = set(unseen_positions(text))
    for position, character in enumerate(text):
        if position not in unseen:
            assert character.isprintable() or character in "\u200c\u200d"


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("\u0410lice Example", '"\u0410lice" looks like "Alice", and has U+0410 CYRILLIC CAPITAL LETTER A'),
        ("\u0421\u0430\u0440\u0430", '"\u0421\u0430\u0440\u0430" looks like "Capa"'),
        ("Ａｌｉｃｅ", '"Ａｌｉｃｅ" looks like "Alice"'),
        ("𝐀lice", '"𝐀lice" looks like "Alice"'),
        ("Юlia", '"Юlia" mixes Cyrillic and Latin'),
        ("Ωmega Ltd", '"Ωmega" mixes Greek and Latin'),
    ],
)
def test_a_word_that_looks_like_another_or_mixes_scripts_is_marked(name: str, note: str) -> None:
    (found,) = resemblances(name)
    assert found.startswith(note)


def test_writing_systems_of_several_scripts_are_not_marked() -> None:
    for name in ("アリスさん山", "山田taro", "김金", "Alice и Боб"):
        assert resemblances(name) == []


def test_a_character_is_told_by_code_point_and_name() -> None:
    assert describe("\u3164") == "U+3164 HANGUL FILLER"
    assert describe("\ue000") == "U+E000"


def test_the_lists_are_those_of_a_release_of_unicode() -> None:
    data = json.loads((files("keyark.text") / "unicode.json").read_text("utf-8"))
    assert int(data["unicode"].partition(".")[0]) >= 17
    assert {"Latin", "Cyrillic", "Greek", "Hani", "Hiragana", "Katakana", "Hangul", "Bopomofo"} <= set(
        unicode_data().scripts
    )
    assert is_unseen("\u2065")  # reserved, and ignorable all the same
