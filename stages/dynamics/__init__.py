"""Stage `dynamics`: watch the student's features over its training, beside the teacher's."""
