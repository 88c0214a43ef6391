"""Step 5, issue: from a request with its archival receipt to a pair of certificates.

``steps`` has the order. ``policy`` and ``approved`` decide what may be issued, ``renewals`` what a renewal must
prove, ``refusals`` what stays refused, and ``subject_names`` who has a name. ``signing_worker`` signs.
"""
