"""What surrounds the method while it is trained: flags, data, checkpoints, validation."""
