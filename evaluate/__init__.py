"""Metrics as pure functions, their aggregation with intervals, and the evaluation report."""
