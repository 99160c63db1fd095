"""Networks: names, geometry, students, taps, weights, costs. A library that stages share; it imports no stage."""
