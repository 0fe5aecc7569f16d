"""Tests of the rate limit: strategies, load, header fields, identities, views, outages."""
