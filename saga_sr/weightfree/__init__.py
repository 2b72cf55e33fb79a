"""The family that needs no weights: MDCT latents, and what their flow starts from."""
