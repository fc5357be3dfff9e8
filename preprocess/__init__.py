"""Converters, generators and the chunking of corpora into a store."""
