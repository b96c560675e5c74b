"""Data rules on the captioned manifest. The only place that talks to Great Expectations."""
