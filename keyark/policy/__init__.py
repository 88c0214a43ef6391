"""Policy: rules that administrators configure, run at each subsystem's stages by one engine, fail-closed."""
