"""Systems measured on the same clips: ``python -m saga_sr.evaluate``."""
