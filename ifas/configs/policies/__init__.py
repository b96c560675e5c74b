"""Gate policies that come with ifas; use one as `builtin:NAME`."""
