"""What the tests share: speech, a live server, a listener for engine events."""
