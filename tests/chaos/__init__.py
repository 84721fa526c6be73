"""Faults on a real Kafka: scenarios that kill, freeze, race and cut off real processes, and hold the log to every rule.

`python -m tests.chaos` runs them all, as `make soak` does; a short form of each is among the tests in tests/kafka.
"""
