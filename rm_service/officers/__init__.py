"""What registration officers do: they decide on requests that wait, and never on their own."""
