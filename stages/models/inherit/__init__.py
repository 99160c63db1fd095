"""First weights of a student, taken from its teacher: see ``stages.models.inherit.inherit``."""
