"""A batch of ticks as one Arrow record batch in the IPC stream format: what ``layout = "arrow"`` publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.errors import SinkError

if TYPE_CHECKING:
    from marketfeed.batches import TickBatch

__all__ = ["record_batch"]


def record_batch(batch: TickBatch) -> bytes:
    """The columns of ``TickBatch.to_arrow()``; journal, feed and vendor stand in the schema's metadata.

    Read it with ``pyarrow.ipc.open_stream(value).read_all()`` or ``polars.read_ipc_stream(value)``.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        message = "layout = \"arrow\" needs pyarrow: pip install 'marketfeed[kafka,arrow]'"
        raise SinkError(message, retryable=False) from error
    origin = batch.origin
    metadata = {"journal": batch.journal, "feed": origin.feed, "vendor": origin.vendor}
    table = batch.to_arrow().replace_schema_metadata(metadata)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())
