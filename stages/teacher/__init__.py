"""Teacher: load it, or fine-tune it to the data's classes."""
