"""What the features share of requests and responses."""
