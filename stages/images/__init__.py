"""Images: sources, splits, transforms, loaders. A library that stages share; it imports no stage."""
