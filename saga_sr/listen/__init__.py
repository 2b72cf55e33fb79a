"""Listening: a page that plays every version of a clip at one position, and what its raters say."""
