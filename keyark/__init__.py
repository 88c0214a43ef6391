"""keyark: the certificate authority for people who encrypt."""
