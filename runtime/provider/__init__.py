"""`runtime.sessions` and the hooks: sessions as the host program sees them."""
