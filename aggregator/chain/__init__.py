"""Writes the commit chain, keyframes and refusals, and sweeps what nobody needs any more."""
