"""The device: local training, error feedback and the outbox that keeps every update until its fate is known."""
