"""Alignment after fine-tuning: negative supervision from the model's own rejected answers (nSFT, arXiv 2411.14797).

Start at `stage.align`. `examples` chooses the images, `answers` samples the model, `codebook` finds errors, `turns`
words the corrections, `mixture` combines them with the chosen answers, `report` measures before and after.
"""
