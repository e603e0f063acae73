"""The recognizer for trying the service: PocketSphinx, whose package carries its English model.

`engine` runs on the event loop and hands out slots; `process` is its handle on one worker process; `worker` is what
runs in that process; `recognizer` is one stream's decoder. Decoders hold the GIL, so they live in processes of their
own.
"""
