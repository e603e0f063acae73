"""The client SDK: stream audio to a server, receive events. Needs neither torch nor a web framework.

wire        the native protocol seen from the client: addresses, frames, messages (no I/O)
transport   one connection: open, send, receive, close
backoff     how long to wait before the next attempt
source      what can be transcribed: iterables of audio
dialer      opening connections, the first and the next ones
outbox      audio and commands not yet acknowledged, so that they can be sent again
mailbox     events on their way to their reader
stream      `connect`: the asynchronous client
sync        `connect_sync`: the same, blocking
microphone  blocks of samples from a sound card
"""
