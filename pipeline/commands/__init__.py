"""Small commands: summary, clean, diagnose."""
