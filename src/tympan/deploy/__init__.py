"""Fleets of containers: capacity, cost, a simulated autoscaler, and deployment on Modal and Ray Serve."""
