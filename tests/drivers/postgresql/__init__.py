"""The postgresql driver."""
