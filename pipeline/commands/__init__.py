"""The commands, a file for each subject. Each imports what it needs, so that `--help` starts at once."""
