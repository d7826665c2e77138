"""``edge-fleet doctor``: what is wrong with broker, store, clocks and dates of expiry, and why."""
