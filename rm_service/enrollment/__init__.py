"""Enrollment: what a request goes through at the RM.

``steps`` has the six steps, one function each. ``forms`` serves step 1, ``under_way`` joins those who send the same
request, ``quotas`` counts what a caller had, ``queue`` keeps what policy deferred until an officer decided, and
``listing`` shows enrollments to officers.
"""
