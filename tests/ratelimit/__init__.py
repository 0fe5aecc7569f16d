"""The rate limit: strategies, admission under load, headers, identities, views, outages."""
