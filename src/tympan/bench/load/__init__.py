"""A load of live streams on a running server: delays, and whether each word arrives exactly once.

spec       options of a load, validated, and what follows from them
speech     audio that every stream sends, cut into chunks
expected   words that the audio must produce: from the script, or from one stream that runs alone first
dialects   requests of each protocol's client, without I/O
readers    parsers of each protocol's messages, without I/O
websocket  WebSocket client: `websockets` without its I/O, on asyncio's transports
caller     one session: sends audio in real time, records arrivals
workers    processes that share the streams
score      comparison of what arrived with what was expected
report     figures, as a table and one line of JSON
page       figures as HTML or PNG

Needs the base install; `page` needs matplotlib.
"""
