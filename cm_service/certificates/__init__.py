"""Certificates that were issued: under what they are found, how they are searched, and which end soon."""
