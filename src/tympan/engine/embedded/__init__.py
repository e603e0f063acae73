"""Whisper in worker processes on the CPU: tiny.en for `embedded`, others for `whisper:NAME`.

`engine` runs on the event loop and hands out slots. `process` controls one worker process, and `worker` is what runs in
that process, since a recognizer holds the GIL. `whisper` has the recognizer of one stream.
"""
