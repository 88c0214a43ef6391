"""The caller: channels, the identity that they present, whom they refuse to reach, and retries."""
