"""The redis driver, beyond the conformance suite."""
