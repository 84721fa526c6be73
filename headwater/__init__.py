"""The composition root: command line, demo and reports; nothing imports it."""
