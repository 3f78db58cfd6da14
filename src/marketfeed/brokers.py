"""What a vendor plugin tells the sandbox server: the broker's side of the protocol, pure.

The server (``marketfeed.sandbox``) owns sockets, time and faults and knows no vendor.
"""
