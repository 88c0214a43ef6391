"""The caller's side: channels, their identity, services that they refuse to reach, and retries."""
