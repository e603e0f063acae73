"""The client SDK: send audio to a server and receive events. Needs neither torch nor a web framework.

stream       `connect`: the asynchronous client
files        `transcribe`: a file or an array in one call
sync         `connect_sync`: the same, blocking
microphone   blocks of samples from a sound card
backoff      how long to wait before the next attempt
connection   the connections of one stream, one after the other
transport    one WebSocket: open, send, receive, close
send_buffer  audio and commands that the server has not acknowledged yet
events       events on their way to their reader, across restarts of the server
source       what can be transcribed: iterables of audio
wire         the native protocol as the client sees it, without I/O
"""
