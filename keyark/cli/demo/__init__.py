"""The story that `keyark demo` and `make demo` tell."""
