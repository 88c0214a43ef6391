# /// script
# dependencies = ["regex==2026.11.19", "unicodedata2==18.0.0", "confusable-homoglyphs==3.3.1"]
# ///
"""Derives keyark/text/unicode.json, Unicode's own lists of what names are checked and marked by.

    pip install regex unicodedata2 confusable-homoglyphs  # in an environment of their own
    python tools/unicode_data.py

Sources: properties of the Unicode Character Database as `regex` has them, names of code points as `unicodedata2` has
them, and confusables.txt of Unicode Technical Standard 39 as `confusable-homoglyphs` has it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import regex
import unicodedata2

TARGET = Path(__file__).parent.parent / "keyark" / "text" / "unicode.json"
EVERYTHING = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
BLANK_WORDS = {"BLANK", "FILLER"}
BLANK_NAMES = {"OBJECT REPLACEMENT CHARACTER", "MUSICAL SYMBOL NULL NOTEHEAD"}
"""Of code points that are assigned no ignorable property, and whose glyph is empty all the same."""


def with_property(name: str) -> list[str]:
    """Return the code points with a property, as ranges."""
    return [_range(run[0], run[-1]) for run in regex.findall(rf"\p{{{name}}}+", EVERYTHING)]


def blank() -> list[str]:
    """Return the code points whose names say that nothing is seen of them."""
    found = (char for char in EVERYTHING if _is_blank(unicodedata2.name(char, "")))
    return [_range(char, char) for char in found]


def _is_blank(name: str) -> bool:
    return bool(BLANK_WORDS & set(name.split())) or name in BLANK_NAMES


def scripts() -> dict[str, list[str]]:
    """Return the code points of every script, by Script_Extensions, without Common and Inherited."""
    names = regex._regex_core.PROPERTIES["SCRIPT"][1]
    by_value: dict[int, str] = {}
    for name, value in names.items():
        if len(name) > len(by_value.get(value, "")):
            by_value[value] = name
    wanted = sorted(set(by_value.values()) - {"COMMON", "INHERITED", "UNKNOWN"})
    found = {name.title(): with_property(f"Script_Extensions={name}") for name in wanted}
    return {name: ranges for name, ranges in found.items() if ranges}


def look_alikes() -> tuple[str, str]:
    """Return the code points that look like an ASCII letter or digit, and in the same order which."""
    text = (files("confusable_homoglyphs") / "confusables.json").read_text()
    table: dict[str, list[dict[str, Any]]] = json.loads(text)
    found: dict[str, str] = {}
    for ascii_character in string.ascii_letters + string.digits:
        for other in table.get(ascii_character, []):
            if len(other["c"]) == 1 and not other["c"].isascii():
                found.setdefault(other["c"], ascii_character)
    ordered = sorted(found)
    return "".join(ordered), "".join(found[character] for character in ordered)


def _range(first: str, last: str) -> str:
    return f"{ord(first):x}" if first == last else f"{ord(first):x}-{ord(last):x}"


def _joined(ranges: Iterable[str]) -> str:
    return " ".join(ranges)


def main() -> None:
    """Write the file."""
    like, ascii_characters = look_alikes()
    data = {
        "unicode": unicodedata2.unidata_version,
        "ignorable": _joined(with_property("Default_Ignorable_Code_Point")),
        "blank": _joined(blank()),
        "joining": {kind: _joined(with_property(f"Joining_Type={kind}")) for kind in "DLRT"},
        "scripts": {name: _joined(ranges) for name, ranges in scripts().items()},
        "look_alikes": like,
        "look_like": ascii_characters,
    }
    TARGET.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
