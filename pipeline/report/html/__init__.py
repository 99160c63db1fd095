"""The report as one HTML file: verdict first, figures drawn here as SVG, pictures of the run inside, no network."""
