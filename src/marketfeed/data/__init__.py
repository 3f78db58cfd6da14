"""Facts that come with the package: session times of exchanges."""
