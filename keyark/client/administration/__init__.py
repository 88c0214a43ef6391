"""What officers do: lists of enrollments, certificates and keys; approvals; revocation."""
