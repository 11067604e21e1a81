"""What z is drawn from: distributions fitted to the encodings of a trained model.

    aggregate    the aggregate posterior q(z): codes drawn from it, and how far it is from N(0, I)
    prior        the four priors as things that can be drawn from, kept and opened
    mixture      Gaussian mixtures with full covariances
    parts        a mixture of many components, fitted part by part
    flow         a velocity that carries noise to codes
    fits         codes -> a prior, by name
    choice       which prior: a two-sample statistic on held-out codes

The decoder has learned to decode q(z), not N(0, I): between the two lie the holes from which bad
samples come, and a prior g fitted to q(z) closes them without another step of training.
"""
