"""What has happened to a job, in order."""
