"""The import: from a source of bytes to customers in PostgreSQL, each row exactly once."""

from customer_panel.imports.library import import_customers, iter_batches
from customer_panel.imports.model import Counts, ImportResult, Progress
from customer_panel.imports.parsed import ParsedBatch, Reject
from customer_panel.imports.stop import Stop

__all__ = [
    "Counts",
    "ImportResult",
    "ParsedBatch",
    "Progress",
    "Reject",
    "Stop",
    "import_customers",
    "iter_batches",
]
