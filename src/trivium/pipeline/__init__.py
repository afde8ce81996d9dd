"""Collections: media to vectors to hits. The only package that knows all others; it imports nothing heavy itself."""
