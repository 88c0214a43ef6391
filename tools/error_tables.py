"""Writes codes and remedies into the tables of docs/protocol.md, from the classes of the errors: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

import keyark.client.errors  # noqa: F401 — defines every class that a row may name
from keyark.errors import error_class
from keyark.rpc.errors import code_of

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.md"
ROW = re.compile(r"^\| `([A-Z_]+)` \| [A-Z_]* \| (.*?) \|[^|]*\|$", re.MULTILINE)


def documented_reasons(text: str) -> list[str]:
    """Return the reasons that the tables name."""
    return [reason for reason, _ in ROW.findall(text)]


def with_codes_and_remedies(text: str) -> str:
    """Return the document with the code and the remedy of each row as the reason's class has them."""
    return ROW.sub(_row, text)


def _row(match: re.Match[str]) -> str:
    reason, meaning = match.groups()
    found = error_class(reason)
    if found is None:
        raise SystemExit(f"docs/protocol.md: no class of keyark.client.errors has the reason {reason}.")
    return f"| `{reason}` | {code_of(found.kind).name} | {meaning} | {found.remedy} |"


if __name__ == "__main__":
    PROTOCOL.write_text(with_codes_and_remedies(PROTOCOL.read_text()))
