"""Training: from a manifest to a checkpoint."""
