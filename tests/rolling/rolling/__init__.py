"""Three nodes restarted one after the other under clients who talk."""
