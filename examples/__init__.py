"""Small services, each to be run with uvicorn from the root of the repository, and the demo."""
