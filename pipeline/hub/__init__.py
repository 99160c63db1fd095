"""Bundles on the Hugging Face hub: ``push``, ``pull``, and the commands of these names."""
