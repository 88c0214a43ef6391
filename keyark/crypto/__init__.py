"""Envelopes, storage keys, match checks, shares and tokens; every primitive is cryptography's."""
