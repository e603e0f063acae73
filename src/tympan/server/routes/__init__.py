"""HTTP routes: health, models, the page, and files in requests."""
