"""One folder per KFP component: thin shells around `ifas.steps`."""

import os

#: Image that every component runs in. On a cluster name it by digest: KFP's cache key holds this string.
IMAGE = os.environ.get("IFAS_IMAGE", "localhost/ifas:0.1.0")
