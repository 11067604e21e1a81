"""The stage `gallery`: what the model reconstructs, samples and fails at, as one offline page."""
