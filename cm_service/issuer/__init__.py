"""The issuing CA: its keys by generation, and the profiles that it issues by."""
