"""Training runs side by side: ``python -m saga_sr.compare``."""
