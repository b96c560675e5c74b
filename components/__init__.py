"""One folder per KFP component: thin shells around `ifas.steps`."""

#: Takes the place of an image where there is none: under kfp.local. On a cluster it is `cluster.image`.
IMAGE = "localhost/ifas:0.1.0"
