"""What the three services' programs share: their settings, their commands and how they run."""
