"""What a tool gets from its tenant: a cache, files, secrets, database connections, resource URIs."""
