"""What leaves the project for other people's programs and servers."""
