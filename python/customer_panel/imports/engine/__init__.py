"""One import, from its claim to its end."""
