"""Paired latents prepared once: ``python -m saga_sr.pre_encode``."""
