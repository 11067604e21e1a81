"""Charts, sheets of images and HTML pages from plain numbers and arrays."""
