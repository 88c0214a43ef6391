"""Custody of private keys: envelopes, seals, match checks, shares and tokens. Every primitive comes from
``cryptography``.
"""
