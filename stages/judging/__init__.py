"""What is measured of networks in any runtime: answers, latency, memory. A library that stages share; no torch."""
