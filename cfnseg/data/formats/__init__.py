"""One module per file layout: where its images and masks are, and its classes."""
