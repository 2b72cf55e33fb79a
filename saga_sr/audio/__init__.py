"""Audio files: opening, searching, streaming, and where their band ends."""
