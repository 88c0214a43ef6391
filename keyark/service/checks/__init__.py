"""The checks that every service makes itself on what another service sends."""
