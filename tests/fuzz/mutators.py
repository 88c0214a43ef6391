"""Mutations of foreign input: of bytes, and of what DER, protobuf and text formats are made of.

``mutate(random, data, others)`` makes one to four of them. The same ``random`` makes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MAX_SIZE = 1 << 16
NUMBERS = (
    b"0", b"-1", b"00", b"1e999", b"NaN", b"9223372036854775807", b"9223372036854775808", b"1" * 400, b"9" * 5000,
    "٣".encode(),
)  # fmt: skip
TEXTS = (
    b"\x00", b"\xff", b"\xed\xa0\x80", "\u202e".encode(), "\u2028".encode(), b"\r\n", b"\n\n", b"%s%n", b"[" * 5000,
    b"{\"a\":" * 3000, b"(" * 2000, b"../", b"=", b"A" * 70, "\u0345".encode(), b'"""', b"'''", b"\\u0000", b"\\ud800",
)  # fmt: skip
DER_TAGS = bytes((0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x13, 0x16, 0x17, 0x18, 0x1E, 0x30, 0x31, 0x80, 0x81,
                  0xA0, 0xA3, 0x1F, 0xFF, 0x24))  # fmt: skip
DER_LENGTHS = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\x81\x00",
    b"\x82\xff\xff",
    b"\x84\xff\xff\xff\xff",
    b"\x88" + b"\xff" * 8,
)
DER_PARTS = (
    b"\x05\x00", b"\x02\x01\x00", b"\x02\x01\xff", b"\x02\x00", b"\x02\x81\x80" + b"\x7f" * 128, b"\x01\x01\x01",
    b"\x06\x01\x80", b"\x06\x0a" + b"\xff" * 9 + b"\x7f", b"\x0c\x04\xff\xfe\xfd\xfc", b"\x16\x02\xc3\xa9",
    b"\x17\x0d991332256161Z", b"\x18\x0f99991231235959Z", b"\x18\x0f00000101000000Z",
    b"\x03\x01\x00", b"\x03\x02\x08\xff",
    b"\x30\x00", b"\x31\x00", b"\x1e\x03abc", b"\x30\x80\x00\x00",
)  # fmt: skip
VARINTS = (b"\x00", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 10 + b"\x01")


def mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return an input that is wrong in a few places; ``others`` are what parts are taken from."""
    for _ in range(random.randint(1, 4)):
        data = random.choice(MUTATIONS)(random, data, others)[:MAX_SIZE]
    return data


def flip_bit(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def set_byte(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x30))]) + data[place + 1 :]


def cut(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.choice((0, random.randint(0, len(data))))
    return data[start : random.randint(start, len(data))]


def cut_out(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(data))
    return data[:start] + data[start + random.randint(1, 40) :]


def repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randint(0, len(data))
    part = data[start : start + random.randint(1, 200)]
    return data[:start] + part * random.choice((2, 3, 50)) + data[start:]


def splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else b""
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = random.randint(0, len(data))
    return data[:place] + random.choice((*TEXTS, *DER_PARTS, *VARINTS)) + data[place:]


def lie_about_length(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    elements = der_elements(data)
    if not elements:
        return set_byte(random, data, ())
    start, content, _end = random.choice(elements)
    return data[: start + 1] + random.choice(DER_LENGTHS) + data[content:]


def change_tag(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    elements = der_elements(data)
    if not elements:
        return set_byte(random, data, ())
    start = random.choice(elements)[0]
    return data[:start] + bytes([random.choice(DER_TAGS)]) + data[start + 1 :]


def change_element(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Replace, remove or double an element, and put all lengths around it right again."""
    elements = der_elements(data)
    if not elements:
        return insert(random, data, others)
    start, content, end = random.choice(elements)
    element = data[start:end]
    new = random.choice(
        (
            b"",
            element * 2,
            random.choice(DER_PARTS),
            data[start : start + 1] + der_length(0),
            data[start : start + 1] + der_length(len(data[content:end]) + 1) + b"\x00" + data[content:end],
            data[slice(*random.choice(elements)[::2])],
        )
    )
    return rebuilt(data, start, end, new)


def change_field(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Add a protobuf field: known ones twice or of another wire type, unknown ones, of any size."""
    number, wire = (
        random.choice((1, 2, 3, 5, 9, 15, 16, 500, 536_870_911)),
        random.choice((0, 1, 2, 3, 4, 5, 7)),
    )
    body = random.choice((*VARINTS, b"\x04\x00\xff\x00\xff", bytes(8)))
    field = varint(number << 3 | wire) + body
    return random.choice((data + field, field + data, data + data, data[:-1] + field))


def change_number(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    places = [place for place, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if not places:
        return insert(random, data, ())
    place = random.choice(places)
    return data[:place] + random.choice(NUMBERS) + data[place + random.randint(0, 3) :]


def swap_lines(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first] = random.choice(
        (lines[second], b"", lines[first] * 2, lines[first].upper(), b" " + lines[first])
    )
    return b"\n".join(lines)


MUTATIONS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    flip_bit, set_byte, cut, cut_out, repeat, splice, insert, lie_about_length, change_tag, change_element,
    change_element, change_field, change_number, swap_lines,
)  # fmt: skip


def der_elements(data: bytes) -> list[tuple[int, int, int]]:
    """Return start, start of the content, and end of each element of DER, those inside of others too."""
    found: list[tuple[int, int, int]] = []
    waiting = [(0, len(data))]
    while waiting and len(found) < 500:
        start, end = waiting.pop()
        if start + 2 > end:
            continue
        length, content = data[start + 1], start + 2
        if length > 0x80:
            octets = length & 0x7F
            length, content = int.from_bytes(data[content : content + octets], "big"), content + octets
        if content + length > end:
            continue
        found.append((start, content, content + length))
        waiting.append((content + length, end))
        if data[start] & 0x20:
            waiting.append((content, content + length))
        elif data[start] in (0x03, 0x04) and length > 3:
            waiting.append((content + (data[start] == 0x03), content + length))
    return found


def der_length(length: int) -> bytes:
    """Return a length as DER has it."""
    if length < 0x80:
        return bytes([length])
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def rebuilt(data: bytes, start: int, end: int, new: bytes) -> bytes:
    """Return DER in which ``new`` stands from start to end, with the lengths of all around it put right."""
    around = sorted(
        ((s, c, e) for s, c, e in der_elements(data) if c <= start and e >= end), key=lambda one: -one[0]
    )
    for outer_start, content, outer_end in around:
        body = data[content:start] + new + data[end:outer_end]
        new = data[outer_start : outer_start + 1] + der_length(len(body)) + body
        start, end = outer_start, outer_end
    return data[:start] + new + data[end:]


def varint(value: int) -> bytes:
    """Return a number as protobuf has it."""
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*octets, value))
