"""What annotation tools export, one file a format."""
