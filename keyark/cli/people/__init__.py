"""Commands of whoever enrolls: enroll, renew, home."""
