"""Who asks: API keys, JWTs and other credentials, resolved to the tenant and principal that they are for."""
