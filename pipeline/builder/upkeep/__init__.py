"""What is to be known of pinned versions: newer releases, vulnerabilities."""
