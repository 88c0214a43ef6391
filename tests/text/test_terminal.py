"""P6: no text of a service moves the cursor, clears the screen, reorders a line or forges one."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import keyark
from keyark.cli.output import KeyarkGroup, SafeGroup, print_json, say, say_aside
from keyark.errors import KeyarkError, PolicyRejectedError, Violation
from keyark.text.characters import unseen_positions
from keyark.text.console import SafeConsole
from keyark.text.terminal import escaped_json, escaped_streams, isolated, line, log_to_stderr, print_line

POISON = "\x1b[2J\x07\x9b31m\x00\r\u202eevil\u2066\u2028\u3164\x7f\nforged line"
SHOWN = r"\x1b[2J\x07\x9b31m\x00\r\u202eevil\u2066\u2028\u3164\x7f\nforged line"


def assert_harmless(output: str) -> None:
    for one in output.split("\n"):
        assert list(unseen_positions(one)) == []
        assert not one.startswith("forged line")


def test_a_byte_of_a_file_name_that_is_no_text_is_shown_as_that_byte() -> None:
    assert line(os.fsdecode(b"sch\xf6n\x80\xff")) == r"sch\xf6n\x80\xff"
    assert line("\ud800\udc7f") == r"\ud800\udc7f"


@given(st.text())
def test_a_line_is_one_line_and_shows_all_of_it(text: str) -> None:
    shown = line(text)
    assert "\n" not in shown
    assert list(unseen_positions(shown)) == []
    assert (shown == text) == (list(unseen_positions(text)) == [])


def test_a_poisoned_text_is_shown_with_escapes() -> None:
    assert line(POISON) == SHOWN


@given(st.dictionaries(st.text(), st.text(st.characters(exclude_categories=["Cs"]))))
def test_json_stays_the_same_and_shows_what_is_in_it(value: dict[str, str]) -> None:
    value = {key.encode("utf-8", "replace").decode(): text for key, text in value.items()}
    text = escaped_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert_harmless(text)


def test_right_to_left_words_stand_apart() -> None:
    assert isolated("key of Alice, archived 2026") == "key of Alice, archived 2026"
    assert isolated("of שרה לוי 12 <a@b.de>, אב") == "of \u2068שרה לוי\u2069 12 <a@b.de>, \u2068אב\u2069"


def test_only_a_terminal_is_given_isolates() -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Tty()
    print_line("שרה 1", plain)
    print_line("שרה 1", terminal)
    assert (plain.getvalue(), terminal.getvalue()) == ("שרה 1\n", "\u2068שרה\u2069 1\n")


def test_a_terminal_that_knows_ascii_only_is_given_escapes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_line("Zoë", stream)
    assert raw.getvalue() == b"Zo\\xeb\n"


def test_whatever_a_command_prints_and_raises_is_escaped() -> None:
    @click.group(cls=SafeGroup)
    def main() -> None:
        """A program."""

    @main.command()
    @click.argument("what")
    def run(what: str) -> None:
        if what == "says":
            say(POISON)
            say_aside(POISON)
            print(POISON, file=sys.stderr)
            print_json({POISON: POISON})
        elif what == "refused":
            raise KeyarkError(POISON)
        elif what == "rejected":
            raise PolicyRejectedError(
                POISON, violations=[Violation(rule=POISON, subsystem=POISON, message=POISON)]
            )
        elif what == "fails":
            raise RuntimeError(POISON)
        raise click.UsageError(POISON)

    for what in ("says", "refused", "rejected", "fails", POISON.replace("\x00", "")):
        done = CliRunner().invoke(main, ["run", what])
        assert done.exit_code in (1, 2, 3)
        if what in ("says", "fails"):  # print and tracebacks keep their line ends
            assert_harmless(done.output.replace("\nforged line", ""))
        elif what in ("refused", "rejected"):
            assert_harmless(done.output)
        assert not set("\x1b\x9b\u202e\u2066\x07\r") & set(done.output)


def test_errors_of_several_lines_are_indented() -> None:
    @click.group(cls=KeyarkGroup)
    def main() -> None:
        """A program."""

    @main.command()
    def run() -> None:
        raise KeyarkError("first\nsecond")

    assert CliRunner().invoke(main, ["run"]).output == "keyark: first\n  second [INTERNAL]\n"


def test_rich_draws_on_a_terminal_and_shows_no_markup_or_control_of_others() -> None:
    drawn = io.StringIO()
    console = SafeConsole(file=drawn, force_terminal=True, width=200)
    table = Table("column")
    table.add_row(POISON)
    table.add_row("[link=https://example.org]markup[/link]")
    table.add_row(Text(POISON))
    console.print(table)
    console.print(POISON, style="bold")
    text = drawn.getvalue()
    assert "\x1b[1m" in text
    assert not [part for part in ("\x1b[2J", "\x9b", "\u202e", "\x07", "\r") if part in text]
    assert "[link=https://example.org]markup[/link]" in text


def test_a_progress_bar_is_drawn_below_what_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(sys, "stderr", drawn)
    with escaped_streams():
        with Progress(console=SafeConsole(stderr=True, force_terminal=True)) as progress:
            progress.add_task("sealing", total=1)
            say_aside(POISON)
        assert "\\x1b[" not in drawn.getvalue().replace(SHOWN, "")
    assert "\x1b[" in drawn.getvalue()
    assert "\x1b[2J" not in drawn.getvalue()


def test_the_streams_below_cannot_be_reached_by_their_buffer() -> None:
    with escaped_streams():
        assert not hasattr(sys.stdout, "buffer")
        with pytest.raises(TypeError):
            sys.stdout.write(b"\x1b[2J")  # type: ignore[arg-type]


def test_a_log_record_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setattr(root, "handlers", [])
    log_to_stderr("drm %(levelname)s: %(message)s")
    logging.getLogger("test").warning("refused: %s", POISON)
    assert written.getvalue() == f"drm WARNING: refused: {SHOWN}\n"


def test_nothing_prints_past_it() -> None:
    """What ruff says of most files, for those too that it is told to spare."""
    folder = Path(keyark.__file__).parent
    for file in (file for part in ("cli", "client", "load") for file in (folder / part).rglob("*.py")):
        text = file.read_text()
        assert "click.echo" not in text, file
        assert "import Console" not in text, file
