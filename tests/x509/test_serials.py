"""Guards serial numbers: random, positive, 159 bits, and one encoding each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import InvalidInputError
from keyark.x509.serials import decode_serial, encode_serial, new_serial, serial_text


def test_new_serials_are_canonical_and_spread_over_all_bits():
    serials = [decode_serial(new_serial()) for _ in range(500)]
    assert len(set(serials)) == 500
    seen_set = seen_clear = 0
    for serial in serials:
        seen_set |= serial
        seen_clear |= ~serial
    assert seen_set == (1 << 159) - 1
    assert seen_clear & ((1 << 159) - 1) == (1 << 159) - 1


@given(st.integers(1, (1 << 159) - 1))
def test_encoding_is_reversible_and_has_no_leading_zero(serial):
    encoded = encode_serial(serial)
    assert decode_serial(encoded) == serial
    assert encoded[0] != 0


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_numbers_out_of_range_are_refused(serial):
    with pytest.raises(InvalidInputError):
        encode_serial(serial)


@pytest.mark.parametrize("serial", [b"", b"\x00", b"\x00\x01", b"\x80" + bytes(19), bytes(21), b"\x01" * 21])
def test_other_encodings_are_refused(serial):
    with pytest.raises(InvalidInputError):
        decode_serial(serial)


def test_a_serial_number_is_shown_as_its_bytes():
    assert serial_text(0x0A) == "0a"
    assert serial_text(1 << 152) == "01" + 19 * "00"
    with pytest.raises(InvalidInputError):
        serial_text(0)
