"""The page in the browser: ``python -m saga_sr.app``."""
