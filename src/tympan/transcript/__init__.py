"""From tokens to words, turns, segments and subtitles."""
