"""The openssl program, for what others make of our certificates."""

from __future__ import annotations

import subprocess


def openssl(*words: object) -> str:
    """Run openssl to its end, which must be good; returns what it printed."""
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
