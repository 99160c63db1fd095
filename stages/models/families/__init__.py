"""What the pipeline knows of each kind of network: one file a family, chosen by the network's class."""
