"""Issued certificates: their index, the search, and which ones end soon."""
