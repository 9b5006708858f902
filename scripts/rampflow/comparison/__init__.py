"""Comparison of two results folders: how the products of each exposure differ, and what they were made of."""
