"""Handlers that worker tests run in real worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from keyark.keys.private_keys import load_private_key
from keyark.keys.spki import encode_spki

Handler = Callable[[list[bytes]], list[bytes]]


def echo(setup: bytes) -> Handler:
    """Answer each item with the set-up, the process id, the batch's size, and the item; do not start with b"refuse"."""
    if setup == b"refuse":
        raise ValueError("no such set-up")

    def work(batch: list[bytes]) -> list[bytes]:
        return [b"%s|%d|%d|%s" % (setup, os.getpid(), len(batch), item) for item in batch]

    return work


def moody(setup: bytes) -> Handler:
    """Die of b"die", die the first time of b"once", hang on b"hang", fail on b"raise"; echo all else."""

    def work(batch: list[bytes]) -> list[bytes]:
        for item in batch:
            if item == b"die":
                os._exit(9)
            if item == b"once" and not os.path.exists(setup):
                open(setup, "w").close()
                os._exit(9)
            if item == b"hang":
                time.sleep(3600)
            if item == b"raise":
                raise ValueError("secret text of the batch")
        return batch

    return work


def slow(setup: bytes) -> Handler:
    """Wait for the file that the set-up names before answering."""

    def work(batch: list[bytes]) -> list[bytes]:
        while not os.path.exists(setup):
            time.sleep(0.01)
        return batch

    return work


def broken(setup: bytes) -> Handler:
    """Do not come up."""
    raise RuntimeError("no key")


def forgetful(setup: bytes) -> Handler:
    """Return too few results."""
    return lambda batch: batch[1:]


def leaky(setup: bytes) -> Handler:
    """Do not come up, and quote the set-up in the exception."""
    raise ValueError(f"bad PIN {setup!r}")


def stuck(setup: bytes) -> Handler:
    """Write into the FIFO that the set-up names, and never answer."""

    def work(batch: list[bytes]) -> list[bytes]:
        with open(setup, "wb") as begun:
            begun.write(b"!")
        time.sleep(3600)
        return batch

    return work


def opens_key(setup: bytes) -> Handler:
    """Open the private key in a file, as a worker does that holds one; answer each item with its public key."""
    key = load_private_key(Path(os.fsdecode(setup)))
    return lambda batch: [encode_spki(key.public_key()) for _ in batch]
