"""params.yaml as typed, validated sections, and the presets."""
