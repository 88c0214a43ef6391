"""Frames between the pool and its workers: each message after its length, 4 bytes big-endian."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final, cast

from keyark.errors import KeyarkError

MAX_FRAME: Final = 64 << 20
HEADER_SIZE: Final = 4
_LENGTH: Final = struct.Struct(">I")


class FrameError(KeyarkError):
    """What came over the socket is no frame of this protocol."""

    reason = "WORKER_FRAME"


def pack(messages: Sequence[bytes]) -> bytes:
    """Join messages into the body of one frame, each after its length."""
    return b"".join(part for message in messages for part in (_LENGTH.pack(len(message)), message))


def unpack(body: bytes) -> list[bytes]:
    """Split the body of a frame into its messages; raises FrameError."""
    messages, position = [], 0
    while position < len(body):
        if position + _LENGTH.size > len(body):
            raise FrameError("A frame ends within its length field.")
        (length,) = _LENGTH.unpack_from(body, position)
        position += _LENGTH.size
        if position + length > len(body):
            raise FrameError("A frame ends within its message.")
        messages.append(body[position : position + length])
        position += length
    return messages


def frame(body: bytes) -> bytes:
    """Return a body after its length."""
    return _LENGTH.pack(len(body)) + body


def read_frame(stream: socket.socket) -> bytes | None:
    """Read the body of one frame, blocking; None where the other end is gone. Raises FrameError."""
    header = _read_exactly(stream, HEADER_SIZE)
    return None if header is None else _read_exactly(stream, body_size(header))


def body_size(header: bytes) -> int:
    """Return the size of the body that follows a header; raises FrameError."""
    (size,) = _LENGTH.unpack(header)
    if size > MAX_FRAME:
        raise FrameError("A frame is larger than allowed.")
    return cast("int", size)


def _read_exactly(stream: socket.socket, size: int) -> bytes | None:
    chunks, missing = [], size
    while missing:
        chunk = stream.recv(min(missing, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
