"""The embedded model and images, and the script that made the images."""
