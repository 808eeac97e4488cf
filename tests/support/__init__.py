"""What the tests run against: real receivers, real servers, and Relay's own validation."""
