"""Shows what the aggregator sees: metrics, the audience of devices, lag and readiness."""
