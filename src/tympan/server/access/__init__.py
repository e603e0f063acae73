"""API keys, short-lived tokens, quotas and allowed origins."""
