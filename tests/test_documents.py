"""Guards documents: what they name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parent
NAMED = re.compile(r"`([a-z0-9_/]+(?:\.py|/))?(?:::(\w+))?`")


def test_every_test_that_the_promises_name_exists():
    """`folder/test_file.py::test_name`; `::test_name` is in the file that was named before it."""
    named, file = 0, None
    for path, name in NAMED.findall((ROOT.parent / "docs" / "promises.md").read_text()):
        if path and path != "tests/":
            file = ROOT / path
            assert file.exists(), path
        if name:
            named += 1
            assert f"def {name}(" in file.read_text(), f"{file}: {name}"
    assert named > 50
