"""What gpud measures of itself, as OpenMetrics text, and the small HTTP server for scrapers."""
