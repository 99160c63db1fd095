"""Gates: the verdict on what was measured. Apart from measuring, so that a changed limit is judged, not timed again."""
