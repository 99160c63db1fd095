"""Data: look at the images before anything is computed from them."""
