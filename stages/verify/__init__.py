"""Prove what the compression cost: accuracy and latency against the teacher, and the gates judged on them."""
