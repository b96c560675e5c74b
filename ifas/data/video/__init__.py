"""Videos of a raw dataset: frames, faces found and tracked, quality filters with an audit of what they throw away."""
