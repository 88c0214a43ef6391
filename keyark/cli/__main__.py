"""`python -I -m keyark.cli`: the `keyark` command, as our own programs start it."""

from keyark.programs import keyark

if __name__ == "__main__":
    keyark()
