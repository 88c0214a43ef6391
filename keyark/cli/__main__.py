"""`python -m keyark.cli`: the `keyark` command."""

from keyark.cli.main import main

if __name__ == "__main__":
    main()
