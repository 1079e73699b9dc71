"""Pictures: bird's-eye view, cameras and the report that joins them."""
