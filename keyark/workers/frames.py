"""Frames between the pool and its workers: each message after its length, 4 bytes big-endian."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Final

from keyark.errors import KeyarkError

MAX_FRAME: Final = 64 << 20
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
            raise FrameError("A frame ends inside a length.")
        (length,) = _LENGTH.unpack_from(body, position)
        position += _LENGTH.size
        if position + length > len(body):
            raise FrameError("A frame ends inside a message.")
        messages.append(body[position : position + length])
        position += length
    return messages


def frame(body: bytes) -> bytes:
    """Return a body after its length."""
    return _LENGTH.pack(len(body)) + body


def read_frame(stream: socket.socket) -> bytes | None:
    """Read the body of one frame, blocking; None where the other end is gone."""
    header = _read_exactly(stream, _LENGTH.size)
    if header is None:
        return None
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME:
        raise FrameError("A frame is larger than any can be.")
    return _read_exactly(stream, length)


def _read_exactly(stream: socket.socket, size: int) -> bytes | None:
    chunks, missing = [], size
    while missing:
        chunk = stream.recv(min(missing, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


async def receive_frame(reader: asyncio.StreamReader) -> bytes:
    """Read the body of one frame; raises asyncio.IncompleteReadError where the other end is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME:
        raise FrameError("A frame is larger than any can be.")
    return await reader.readexactly(length)
