"""The page of `python -m saga_sr.app`: what it shows, what it keeps, what it does with audio."""
