"""What registration officers do: they decide on waiting requests, but not on their own."""
