"""Custody of private keys: envelopes, seals, match checks, shares and tokens; every primitive is cryptography's."""
