"""What Unicode says of characters: which nobody sees, where joiners belong, and which names look like others.

The lists are Unicode's own; `tools/unicode_data.py` derives them. What a release of Unicode adds later counts as
unassigned until then.
"""

from __future__ import annotations

import json
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

MAX_MARKS: Final = 4
"""Nonspacing marks on one character (UTS 39 §5.4); more of them reach into the lines above and below."""
ZERO_WIDTH_NON_JOINER: Final = "\u200c"
ZERO_WIDTH_JOINER: Final = "\u200d"

_SEEN_IN_PART: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_VIRAMA: Final = 9  # canonical combining class
_AUGMENTED: Final = {  # UTS 39 §5.1: writing systems of several scripts
    "Latin": (
        "Hanb",
        "Jpan",
        "Kore",
    ),  # highly restrictive, UTS 39 §5.2: Latin beside these is read without doubt
    "Hani": ("Hanb", "Jpan", "Kore"),
    "Hiragana": ("Jpan",),
    "Katakana": ("Jpan",),
    "Hangul": ("Kore",),
    "Bopomofo": ("Hanb",),
}


@dataclass(frozen=True)
class Ranges:
    """A set of code points."""

    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read hexadecimal ranges that are separated by spaces, in ascending order."""
        pairs = [part.partition("-") for part in text.split()]
        starts = [int(first, 16) for first, _, _ in pairs]
        return cls(starts, [int(last or first, 16) for first, _, last in pairs])

    def __contains__(self, character: str) -> bool:
        position = bisect_right(self.starts, ord(character)) - 1
        return position >= 0 and ord(character) <= self.ends[position]


@dataclass(frozen=True)
class UnicodeData:
    """The lists in unicode.json."""

    unseen: Sequence[Ranges]
    joining: dict[str, Ranges]
    scripts: dict[str, Ranges]
    look_alikes: dict[str, str]


@cache
def unicode_data() -> UnicodeData:
    """Return Unicode's lists, read when a text is not ASCII for the first time."""
    data: dict[str, Any] = json.loads((files("keyark.text") / "unicode.json").read_text("utf-8"))
    return UnicodeData(
        unseen=[Ranges.parse(data["ignorable"]), Ranges.parse(data["blank"])],
        joining={kind: Ranges.parse(ranges) for kind, ranges in data["joining"].items()},
        scripts={name: Ranges.parse(ranges) for name, ranges in data["scripts"].items()},
        look_alikes=dict(zip(data["look_alikes"], data["look_like"], strict=True)),
    )


@lru_cache(maxsize=4096)
def is_unseen(character: str) -> bool:
    """Whether nobody sees a character, or not where it stands: controls, formats, ignorable, blank, unassigned ones."""
    if character.isascii():
        return not character.isprintable()
    category = unicodedata.category(character)
    is_odd_space = category == "Zs"  # U+0020 is ASCII
    return is_odd_space or category in _SEEN_IN_PART or any(character in r for r in unicode_data().unseen)


def unseen_positions(text: str) -> Iterator[int]:
    """Yield where a character stands that does not belong into a line for people, joiners in their context aside."""
    if text.isascii() and text.isprintable():
        return
    marks = 0
    for position, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character) == "Mn" else 0
        if marks > MAX_MARKS or (is_unseen(character) and not _is_joiner_in_context(text, position)):
            yield position


def _is_joiner_in_context(text: str, position: int) -> bool:
    """RFC 5892 appendix A.1 and A.2: joiners belong after a virama, and the non-joiner between joining letters."""
    character = text[position]
    if character not in (ZERO_WIDTH_JOINER, ZERO_WIDTH_NON_JOINER) or position == 0:
        return False
    if unicodedata.combining(text[position - 1]) == _VIRAMA:
        return True
    if character == ZERO_WIDTH_JOINER:
        return False
    return _joins(reversed(text[:position]), "LD") and _joins(iter(text[position + 1 :]), "RD")


def _joins(characters: Iterator[str], kinds: str) -> bool:
    """Whether the first character that is not transparent to joining joins towards where it is seen from."""
    joining = unicode_data().joining
    for character in characters:
        if character not in joining["T"]:
            return any(character in joining[kind] for kind in kinds)
    return False


def without_joiners(text: str) -> str:
    """Return a text without zero width joiners and non-joiners, wherever they stand."""
    return text.replace(ZERO_WIDTH_JOINER, "").replace(ZERO_WIDTH_NON_JOINER, "")


def describe(character: str) -> str:
    """Return a character's code point and name: "U+3164 HANGUL FILLER"."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}{f' {name}' if name else ''}"


def resemblances(text: str) -> list[str]:
    """Return what a careful reader has to know of a name: words that look like ASCII ones or mix scripts (UTS 39)."""
    if text.isascii():
        return []
    return [note for word in _words(text) if not word.isascii() for note in _notes(word)]


def _words(text: str) -> Iterator[str]:
    for in_word, characters in groupby(text, key=lambda char: unicodedata.category(char)[0] in "LMN"):
        if in_word:
            yield "".join(characters)


def _notes(word: str) -> Iterator[str]:
    looks_like = "".join(unicode_data().look_alikes.get(character, character) for character in word)
    foreign = sorted({char for char in word if not char.isascii()})
    if looks_like.isascii():
        yield f'"{word}" looks like "{looks_like}", and has {", ".join(describe(char) for char in foreign)}'
    elif len(scripts := _scripts(word)) > 1:
        yield f'"{word}" mixes {" and ".join(scripts)}'


def _scripts(word: str) -> list[str]:
    """Return the scripts of a word: one where a single writing system has all of its characters."""
    sets = [found for character in word if (found := _script_set(character))]
    if not sets or frozenset.intersection(*sets):
        return ["one script"]
    real = {name for found in sets for name in found if name in unicode_data().scripts}
    needed = {name for found in sets if len(found & real) == 1 for name in found & real}
    return sorted(needed or real)


@lru_cache(maxsize=4096)
def _script_set(character: str) -> frozenset[str]:
    """Return the writing systems that use a character; empty for those that all may use."""
    names = {name for name, ranges in unicode_data().scripts.items() if character in ranges}
    return frozenset(names | {system for name in names for system in _AUGMENTED.get(name, ())})


def counted(number: int, noun: str) -> str:
    """Return "1 key" or "2 keys"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
