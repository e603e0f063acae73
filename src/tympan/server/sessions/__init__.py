"""A client's connection and session: outbox, resume, log."""
