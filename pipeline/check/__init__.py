"""`compress check`: a run against a committed baseline. Reads the report, never the stages; torch-free."""
