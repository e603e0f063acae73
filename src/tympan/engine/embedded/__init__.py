"""The recognizer for trying the service: PocketSphinx, whose package includes an English model.

`engine` runs on the event loop and hands out slots. `process` controls one worker process, and `worker` is what runs in
that process. `recognizer` is the decoder of one stream. Decoders hold the GIL, so they run in separate processes.
"""
