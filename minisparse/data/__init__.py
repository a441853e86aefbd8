"""Data sets: embedded, read from files, or generated; mini-batches; exact and bounded file readers.

`load` gets any of them by name. Importing this package costs NumPy only: fetching files is in
`minisparse.data.download`, which nothing here imports.
"""

from minisparse.data.dataset import Dataset
from minisparse.data.registry import available, load
from minisparse.data.synthetic import Known

__all__ = ["Dataset", "Known", "available", "load"]
