"""Many live streams on a running server: what they wait for, and whether each gets every word once.

plan       what to run: the options, checked, and what follows from them
speech     the audio that every stream sends, cut into chunks once
expected   the words that this audio must give: the script's, or those that the same server gave to one stream alone
dialects   each protocol as its client sees it, without any I/O
readers    what a message that comes down says, in each of them
socket     one WebSocket: `websockets` without its I/O, under asyncio's transports
session    one session: paced audio up, arrivals noted
share      the streams of one process
workers    as many processes as needed
score      arrivals against what was expected
report     the figures: a table and one line of JSON
picture    the same as HTML or PNG

Needs the base install; the picture needs matplotlib.
"""
