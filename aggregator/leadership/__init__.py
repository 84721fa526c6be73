"""Elects which of several processes is to write the chain."""
