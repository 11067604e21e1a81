"""What every likelihood p(x | z) implements.

`decoded` is the decoder's output (B, decoded_channels(C), H, W); x are images (B, C, H, W) in
[0, 1], float32. Log probabilities are in nats, summed over sub-pixels, (B,).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class Likelihood(nn.Module, ABC):
    """A likelihood without a scale to calibrate and without one sigma for all sub-pixels."""

    needs_calibration = False
    """whether `calibrate` must set a scale after training"""
    discrete = False
    """whether `log_prob` is the log probability of the 8-bit (or binary) image"""

    def decoded_channels(self, channels: int) -> int:
        """Channels that the decoder must return for images of `channels`."""
        return channels

    @abstractmethod
    def log_prob(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Log density or probability that training maximises, nats, (B,)."""

    @abstractmethod
    def mean(self, decoded: Tensor) -> Tensor:
        """E[x | z], (B, C, H, W); it may leave [0, 1] a little if its link is linear."""

    @abstractmethod
    def sample(self, decoded: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x, (B, C, H, W)."""

    def discrete_log_prob(
        self, decoded: Tensor, x: Tensor, log_prob: Tensor | None = None
    ) -> Tensor | None:
        """Log probability of the 8-bit (or binary) image, nats, (B,); None without one.

        `log_prob` is that of the same arguments, if it is known; it saves computing it again.
        """
        if not self.discrete:
            return None
        return self.log_prob(decoded, x) if log_prob is None else log_prob

    def sigma(self) -> float | None:
        """Standard deviation of x given z, if it is one number for all sub-pixels."""
        return None

    def implied_variance(self, beta: float) -> float | None:
        """Noise variance at which beta = 1 has the same optimum; None without one."""
        return None

    def constant_distortion(self, mean: np.ndarray, variance: np.ndarray) -> float | None:
        """Distortion of the best constant image, nats per image; None without a formula.

        `mean` and `variance` (C, H, W) are those of the training images' sub-pixels.
        """
        return None

    def pixel_errors(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Error of each sub-pixel, whose mean calibrates the scale."""
        raise NotImplementedError

    def calibrate(self, mean_error: float) -> None:
        """Set the scale from the mean error of the training split."""
        raise NotImplementedError

    def use_levels(self, levels: int) -> None:
        """Receive the number of grey values that the data have."""

    def use_batch_mean(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Take statistics of a batch by `mean`, which may span several processes."""
