"""Student: build it as its strategy says."""
