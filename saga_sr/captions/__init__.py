"""Captions by Qwen2-Audio: ``python -m saga_sr.captions``."""

DEFAULT_MODEL = "Qwen/Qwen2-Audio-7B"
