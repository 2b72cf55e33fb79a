"""The family that needs no weights: MDCT latents, and tokens in time and frequency."""
