"""The full model against four ablations, on the simulator: `python -m benchmarks.learning`.

`settings` reads what was fixed beforehand (study.yaml, run.yaml), `prepare` makes images and captions, `single` is
one run in a process of its own, `schedule` runs them all, `compare` and `page` make docs/results.md.
"""
