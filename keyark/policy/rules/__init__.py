"""The rule types that administrators configure: some in Python, the ready-made ones in CEL."""
