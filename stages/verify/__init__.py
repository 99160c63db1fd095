"""Measure what the compression cost: accuracy, latency, throughput and memory against the teacher."""
