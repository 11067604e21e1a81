"""Sheets of images, charts of numbers, and the offline page that shows both."""
