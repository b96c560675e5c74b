"""Training: sampling, augmentation, the loop, DeepSpeed, checkpoints, and the Ray Train driver around them.

Start at `driver.train`. `loop` is the training itself and does not depend on Ray. Only `engine` uses DeepSpeed, and
only the modules `ray_*` use Ray.
"""
