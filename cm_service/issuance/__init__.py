"""Step 5, issue: from a request with its archival receipt to a pair of certificates.

``steps`` goes through it in order; ``policy`` and ``approved`` say what may be issued, ``renewals`` what a renewal has
to show, ``refusals`` what stays refused, ``subject_names`` who holds a name; ``signing_worker`` signs.
"""
