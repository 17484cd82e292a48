"""What a run leaves: its record on disk, mirrored to Weights & Biases."""
