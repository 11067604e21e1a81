"""From params to library objects, and from artifacts to loaded models."""
