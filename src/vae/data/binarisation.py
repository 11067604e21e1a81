"""Binary pixels: draws from a grey image as a table of probabilities.

A pixel k in 0..255 becomes 255 with probability k / 255, else 0; as x that is 1 or 0, of
which a Bernoulli likelihood is a probability. Static: each image is drawn once. Dynamic: training
images are drawn at every step, as augmentation; held-out images once, so that their bound is fixed
 (Salakhutdinov & Murray 2008; Burda et al. 2016).
"""

import numpy as np


def binarise(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """uint8 images of any shape as a draw of 0 and 255."""
    ones = generator.integers(0, 255, images.shape, dtype=np.uint8) < images
    return ones.astype(np.uint8) * np.uint8(255)
