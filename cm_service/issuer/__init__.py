"""The issuing CA: its keys by generation, and its certificate profiles."""
