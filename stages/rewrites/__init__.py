"""Exact rewrites of a trained network for deployment."""
