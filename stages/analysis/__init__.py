"""What a network's features look like: one streaming pass over images, then numbers, tables, figures and advice."""
