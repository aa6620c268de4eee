"""Where a request arrives: its credential, its era, its session, and the response or stream that answers it."""
