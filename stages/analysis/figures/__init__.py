"""Figures of ``analysis.json``, each a function from its numbers to a matplotlib Figure; ``draw`` writes them all."""
