"""What a trained model is worth: bounds on the likelihood, reconstruction errors, latents."""
