"""The science and the steps: each stage turns a config and records into a record."""
