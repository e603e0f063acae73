"""HTTP routes: health, models, the page, files in requests."""
