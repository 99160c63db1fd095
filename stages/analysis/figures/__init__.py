"""Figures of an analysis, each a function from NetworkResults to a matplotlib Figure; ``draw`` writes them all."""
