"""`compress sign`, and the options by which other commands check a signature first."""
