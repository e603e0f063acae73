"""How the command line is read, and what it prints before a command runs."""
