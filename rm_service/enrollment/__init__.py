"""Enrollment at the RM.

``steps`` has the six steps, one function each. ``forms`` serves step 1. ``under_way`` lets callers that send
the same request share its outcome. ``quotas`` counts a caller's enrollments. ``queue`` keeps requests that
policy deferred until an officer decides. ``listing`` shows enrollments to officers.
"""
