"""A fleet: what it carries, what it costs, and how it is put on somebody's machines."""
