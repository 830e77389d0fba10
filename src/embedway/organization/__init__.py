"""Projects, keys, end users and the audit log, as the admin API and the CLI both use them."""
