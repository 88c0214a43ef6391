"""Commands of people who enroll: enroll, renew, home."""
