"""Who may connect, and how much: keys, tokens, quotas, origins."""
