"""Fold: absorb a lift's projector by algebra."""
