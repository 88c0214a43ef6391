"""The Certificate Manager: the CA."""
