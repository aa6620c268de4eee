"""`tenant.connection()`: three ways to keep the rows of tenants apart in PostgreSQL."""
