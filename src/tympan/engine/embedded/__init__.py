"""Recognizers that run in worker processes on the CPU: PocketSphinx for `embedded`, Whisper for `whisper:NAME`.

`engine` runs on the event loop and hands out slots. `process` controls one worker process, and `worker` is what runs in
that process. `recognizer` is PocketSphinx's decoder of one stream, `whisper/recognizer` the one of Whisper. Both hold
the GIL, so they run in separate processes.
"""
