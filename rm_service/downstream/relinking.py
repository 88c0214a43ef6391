"""Telling the DRM once more which certificates were issued: after it was restored from a backup, or refused them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from keyark.config import load_config
from keyark.errors import InvalidInputError, NotFoundError
from keyark.records.v1.rm_pb2 import OutboxRecord
from keyark.service.control import ask
from keyark.service.program.output import answer_lines
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.store import WriteTransaction
from rm_service.config import RmConfig
from rm_service.downstream.outbox import LinkOutbox
from rm_service.records import OUTBOX, read_enrollment

RELINK: Final = "relink"


def add_commands(commands: Any) -> None:
    """Add `relink` to the RM's program."""
    parser: argparse.ArgumentParser = commands.add_parser(
        RELINK, help="tell the DRM again which certificates were issued for these enrollments"
    )
    parser.add_argument("config", type=Path, help="rm.toml")
    parser.add_argument("enrollment_id", nargs="+", help="ids of enrollments: 32 bytes each, hexadecimal")
    parser.set_defaults(command=_ask)


def _ask(parsed: argparse.Namespace) -> None:
    told = ask(load_config(parsed.config, RmConfig).store.path, RELINK, *parsed.enrollment_id)
    answer_lines(parsed, "rm", told)


async def relink(outbox: LinkOutbox, words: Sequence[str]) -> list[str]:
    """Put the encryption certificates of completed enrollments into the outbox again; returns what to tell.

    All or none. Raises InvalidInputError for what is no enrollment id, and NotFoundError where the RM has no outcome.
    """
    ids = [_enrollment_id(word) for word in words]

    def write(txn: WriteTransaction) -> None:
        for enrollment_id in ids:
            record = read_enrollment(txn, enrollment_id)
            if record is None:
                raise NotFoundError(
                    f"The RM has no outcome for {enrollment_id.hex()}; its client has to submit the same "
                    "request again."
                )
            if not record.encryption_certificate:
                raise NotFoundError(
                    f"No certificates were issued for {enrollment_id.hex()}; there is nothing to link."
                )
            approval = record.review.approval if record.review.HasField("approval") else None
            row = OutboxRecord(encryption_certificate=record.encryption_certificate, approval=approval)
            txn.put(OUTBOX, enrollment_id, row.SerializeToString())

    await outbox.store.update(write)
    outbox.retry()
    return [f"{len(ids)} certificates will be sent to the DRM again"]


def _enrollment_id(word: str) -> bytes:
    try:
        enrollment_id = bytes.fromhex(word)
    except ValueError:
        enrollment_id = b""
    if len(enrollment_id) != ENROLLMENT_ID_SIZE:
        raise InvalidInputError(f"{word!r} is not an enrollment id; `keyark keys list` shows them.")
    return enrollment_id
