"""Comes back to the newest state from the log: restart, standby, replay and recovery from lost data."""
