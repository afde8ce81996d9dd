"""Pages that show what was found, each one file: pictures small and inside, media linked relative to the page."""
