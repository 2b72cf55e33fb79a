"""What training reads beside audio: prepared latents, captions, and how many clips have text."""
