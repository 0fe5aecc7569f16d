"""The drivers; each module imports its own client library and is loaded on first use."""
