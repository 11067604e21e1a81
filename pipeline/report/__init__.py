"""Kept results, and the pages made from them."""
