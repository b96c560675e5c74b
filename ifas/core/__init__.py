"""What every room shares: records, config, errors, taxonomy, hashing, progress. Imports nothing of ifas."""
