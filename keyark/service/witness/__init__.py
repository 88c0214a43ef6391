"""RM and CM as witnesses of the DRM's log, its alarms, and a DRM that was restored."""
