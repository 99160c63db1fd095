"""The report as one HTML file: verdict first, charts and pictures of the run inside, no network."""
