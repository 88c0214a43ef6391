"""Guards what must not get lost: a password that is made is told to somebody, or nothing is done."""

import io

import pytest

from keyark.cli.output import OutputLostError, check_heard, tell


def test_a_file_and_a_pipe_are_heard(tmp_path):
    with (tmp_path / "told").open("w+") as stream:
        check_heard(stream)
        tell("password: made", stream)
        stream.seek(0)
        assert stream.read() == "password: made\n"
    check_heard(io.StringIO())


def test_what_nobody_hears_is_found_out_before_anything_is_done():
    for path in (None, "/dev/null"):
        stream = None if path is None else open(path, "w")  # noqa: SIM115
        with pytest.raises(OutputLostError, match="--password-file"):
            check_heard(stream)
        if stream is not None:
            stream.close()
    with pytest.raises(OutputLostError):
        check_heard(stream)


@pytest.mark.parametrize("closed", [True, False])
def test_what_cannot_be_written_is_an_error(closed):
    stream = open("/dev/full", "w")  # noqa: SIM115
    if closed:
        stream.close()
    with pytest.raises(OutputLostError, match="Run the command again"):
        tell("password: made", stream)
    if not closed:
        with pytest.raises(OSError, match="No space"):
            stream.close()
    with pytest.raises(OutputLostError):
        tell("password: made", None)
