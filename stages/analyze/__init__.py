"""Stage `analyze`: read the teacher before anything is trained from it, and advise."""
