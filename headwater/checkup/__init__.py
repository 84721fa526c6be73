"""What `headwater status` and `headwater doctor` look at, and what they say about it."""
