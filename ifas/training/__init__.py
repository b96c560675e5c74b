"""Training: sampling, augmentation, the loop, DeepSpeed, checkpoints, and the Ray Train driver around them.

Start at `driver.train`. `loop` is the training itself and knows nothing of Ray; `engine` is the door to DeepSpeed,
the modules `ray_*` are the doors to Ray.
"""
