"""The fleet page: one read-only page of the aggregator for whoever wants to see the fleet learn."""
