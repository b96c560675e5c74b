"""The face in an image: where it is, and the parts of the image that a model sees of it."""
