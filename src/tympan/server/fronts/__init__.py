"""A server of several processes: a supervisor, the fronts, which serve clients, and the engine processes."""
