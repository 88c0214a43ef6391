"""What people sign: enrollments, calls, approvals, revocations, decisions on ceremonies; and pairs that answer one."""
