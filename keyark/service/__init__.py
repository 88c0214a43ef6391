"""What the programs of the three services share: settings, commands, and how they run."""
