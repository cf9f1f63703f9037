"""Streams of labelled batches, teachers, and the loop that trains on them."""
