"""The demo: twenty smartwatches train one model over a real broker, and a report says how it went."""
