"""What every service checks for itself of what another one hands it."""
