"""Priors: distributions of z fitted to the encodings of a trained model.

    encodings             draws of the aggregate posterior q(z), and its divergence from N(0, I)
    prior                 the four priors: draws, densities, reading and writing
    gaussian_mixture      Gaussian mixtures with full covariances
    partitioned_mixture   mixtures of many components, fitted partition by partition
    flow                  a velocity that transports noise to codes
    fit                   codes -> a prior, by name
    selection             the prior with the lowest MMD^2 to held-out codes

The decoder is trained on q(z), not on N(0, I): where the two differ, samples are bad. A prior
fitted to q(z) repairs this without further training.
"""
