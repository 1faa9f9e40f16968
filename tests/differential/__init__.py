"""The same requests to Glimpse and to the real Glance, and what comes back side by side (`make test-glance`)."""
