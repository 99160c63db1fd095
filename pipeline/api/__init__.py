"""The Python face: what `import vitcompress` offers, and what the command line calls."""
