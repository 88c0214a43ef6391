"""What people sign: enrollments, calls, approvals, revocations and decisions on ceremonies; and pairs, the answer
to one.
"""
