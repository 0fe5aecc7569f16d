"""The drivers and what they share."""
