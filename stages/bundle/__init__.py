"""The bundle: which artifacts are deployed, by what was measured of them, and the directory with them."""
