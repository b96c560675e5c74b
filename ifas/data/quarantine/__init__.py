"""New spoof data enters a dataset in quarantine; a named person other than its submitter releases it after validation.

`dataset.json` holds the record of every batch under `batches`: who delivered and added it, when, how many rows, a hash
over its rows, and later who released it, why and on which evidence. Adding and releasing are revisions of the dataset
in the registry; images are stored once.

`delivery` checks what was delivered, `adding` and `releasing` hold the rules, `appending` puts a batch behind the
images that a dataset has, `record` is what both rules read and write.
"""

from ifas.data.quarantine.adding import MAX_ROWS, Added, add
from ifas.data.quarantine.delivery import BatchRefused
from ifas.data.quarantine.record import records
from ifas.data.quarantine.releasing import release

__all__ = ["MAX_ROWS", "Added", "BatchRefused", "add", "records", "release"]
