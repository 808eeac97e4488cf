"""What each way to get a service's data to Sentry costs. `make bench` runs all of it."""
