"""The memory driver, beyond the conformance suite."""
