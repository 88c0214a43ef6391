"""RM and CM as witnesses of the DRM's log: alarms, and what follows after the DRM was restored."""
