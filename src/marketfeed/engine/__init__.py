"""The engine: from the socket to the sinks.

::

    Wire (a thread per connection) -> Inbox -> ParseLoop (one thread) -> Journal -> Delivery (a thread per sink)
"""
