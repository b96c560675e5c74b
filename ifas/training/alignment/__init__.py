"""Alignment after fine-tuning: negative supervision from the model's own rejected answers (nSFT, arXiv 2411.14797).

Start at `stage.align`. `examples` says what may be mined, `answers` samples, `codebook` finds the errors, `turns` words
the corrections, `mixture` lays them beside the chosen answers, `report` measures before and after.
"""
