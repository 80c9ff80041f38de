"""A `crowd.Task` trained by Flower: `server` (FedAvg, and what it reached), `client` (one epoch of a device's own
samples), `part` (from a cluster file to a device's task, and the way of news)."""
