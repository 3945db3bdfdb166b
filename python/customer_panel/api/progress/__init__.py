"""The progress of imports over HTTP: once, or as a stream of server-sent events.

`hub` reads the database for all streams of the process, `stream` sends to one client, `messages`
makes the bytes, `routes` has the operations.
"""
